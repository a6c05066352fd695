"""Limits on the running requests of each API key, so that one key cannot hold all slots."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic

from slotkeeper.scheduling.reservation import QueuedRequest, QueueRank, T
from slotkeeper.scheduling.sorted_list import SortedList


@dataclass(frozen=True, slots=True)
class RunningLimits:
    """How many slots the running requests of one key may hold at the same time."""

    default: int | None = None
    """Of each key; None: no limit."""
    by_key: Mapping[str, int] = field(default_factory=dict)
    """Of single keys, by name."""

    def of(self, key: str) -> int | None:
        """Return the limit of a key; None: no limit."""
        return self.by_key.get(key, self.default)


class KeyedRequests(Generic[T]):
    """Holds back the queued requests of keys at their limit, which would otherwise block others.

    Of each key, the first requests by rank take part in the queue's order, as many as have slots
    left under the limit; the others are held. `hold` and `resume` take a request out of the order
    and put it back. A request that takes several slots counts as many, but at most the limit:
    nothing is held for ever. Its key may exceed the limit with it, which the caller prevents.
    """

    def __init__(
        self,
        limits: RunningLimits,
        hold: Callable[[QueuedRequest[T]], None],
        resume: Callable[[QueuedRequest[T]], None],
    ) -> None:
        self._limits = limits
        self._hold = hold
        self._resume = resume
        self._keys: dict[str, _KeyState[T]] = {}
        self.held_tasks = 0
        """Slots that the held requests would use if replicas had enough, without preemptible
        ones."""
        self.held_preemptible = 0
        """Number of held requests that are preemptible."""

    @property
    def held(self) -> int:
        """Number of held requests."""
        return sum(len(state.held) for state in self._keys.values())

    def may_run(self, key: str, slots: int) -> bool:
        """Whether a request of `key` could run now if `slots` are free, as many as it takes."""
        limit = self._limits.of(key)
        state = self._keys.get(key)
        if limit is None or state is None:
            return True
        return not len(state.held) and state.committed + min(slots, limit) <= limit

    def slots_lacking(self, key: str) -> Iterator[int]:
        """Yield how many slots each held request of `key` needs that is not preemptible, in order.

        As many must be released by requests of the key, which is at its limit.
        """
        state = self._keys.get(key)
        if state is None:
            return
        left = state.limit - state.committed
        for queued in state.held:
            if queued.preemptible:
                break
            needed = state.weight(queued)
            yield max(0, needed - left)
            left = max(0, left - needed)

    def rank_of(self, queued: QueuedRequest[T]) -> int:
        """Return the number of held requests that rank before this one."""
        return sum(state.held.rank_of(queued.rank) for state in self._keys.values())

    def enqueued(self, queued: QueuedRequest[T]) -> None:
        """Hold a request that was queued, or those that rank behind it, if too many may run."""
        limit = self._limits.of(queued.flow_key.key)
        if limit is None:
            return
        state = self._keys.setdefault(queued.flow_key.key, _KeyState(limit))
        state.add_eligible(queued)
        first_held = state.held.head
        while len(state.eligible) and (
            state.committed > limit or (first_held and first_held.rank < state.eligible.last.rank)
        ):
            last = state.eligible.last
            state.remove_eligible(last)
            state.held.add(last.rank, last)
            self._count_held(last, 1)
            self._hold(last)

    def cancelled(self, queued: QueuedRequest[T]) -> None:
        """Forget a request that left the queue without a slot."""
        state = self._keys.get(queued.flow_key.key)
        if state:
            if queued.rank in state.held:
                self._unhold(state, queued)
            elif queued.rank in state.eligible:
                state.remove_eligible(queued)
            self._update(queued.flow_key.key, state)

    def dispatched(self, queued: QueuedRequest[T]) -> None:
        """Forget a request that left the queue for its slots, which reserved() counts."""
        state = self._keys.get(queued.flow_key.key)
        if state:
            state.remove_eligible(queued)

    def reserved(self, key: str) -> None:
        """Count a slot that was reserved for a request of `key`."""
        state = self._keys.get(key)
        if state:
            state.running += 1

    def released(self, key: str) -> None:
        """Count a slot that was released."""
        state = self._keys.get(key)
        if state:
            state.running -= 1
            self._update(key, state)

    def _update(self, key: str, state: "_KeyState[T]") -> None:
        while (first := state.held.head) and state.committed + state.weight(first) <= state.limit:
            self._unhold(state, first)
            state.add_eligible(first)
            self._resume(first)
        if not (state.running or len(state.eligible) or len(state.held)):
            del self._keys[key]

    def _unhold(self, state: "_KeyState[T]", queued: QueuedRequest[T]) -> None:
        state.held.discard(queued.rank)
        self._count_held(queued, -1)

    def _count_held(self, queued: QueuedRequest[T], sign: int) -> None:
        if queued.preemptible:
            self.held_preemptible += sign
        else:
            self.held_tasks += sign * queued.tasks.total


class _KeyState(Generic[T]):
    """The requests of one key."""

    __slots__ = ("_eligible_slots", "eligible", "held", "limit", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        """Slots that its requests hold."""
        self.eligible: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self.held: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self._eligible_slots = 0

    @property
    def committed(self) -> int:
        """Slots of running and of eligible requests."""
        return self.running + self._eligible_slots

    def weight(self, queued: QueuedRequest[T]) -> int:
        """Return how many slots a request counts as."""
        return min(queued.expected_slots, self.limit)

    def add_eligible(self, queued: QueuedRequest[T]) -> None:
        self.eligible.add(queued.rank, queued)
        self._eligible_slots += self.weight(queued)

    def remove_eligible(self, queued: QueuedRequest[T]) -> None:
        self.eligible.discard(queued.rank)
        self._eligible_slots -= self.weight(queued)
