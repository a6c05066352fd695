"""Limits on the running requests of each API key, so that one key cannot hold all slots."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic

from slotkeeper.scheduling.reservation import QueuedRequest, QueueRank, T
from slotkeeper.scheduling.sorted_list import SortedList


@dataclass(frozen=True, slots=True)
class RunningLimits:
    """How many requests of one key may run at the same time."""

    default: int | None = None
    """Of each key; None: no limit."""
    by_key: Mapping[str, int] = field(default_factory=dict)
    """Of single keys, by name."""

    def of(self, key: str) -> int | None:
        """Return the limit of a key; None: no limit."""
        return self.by_key.get(key, self.default)


class KeyedRequests(Generic[T]):
    """Holds back the queued requests of keys at their limit, which would otherwise block others.

    Of each key, as many queued requests take part in the queue's order as may still run, the first
    ones by rank; the others are held. `hold` and `resume` take a request out of the order and put
    it back.
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

    @property
    def held(self) -> int:
        """Number of held requests."""
        return sum(len(state.held) for state in self._keys.values())

    def may_run(self, key: str) -> bool:
        """Whether a request of `key` could run now if a slot is free."""
        limit = self._limits.of(key)
        state = self._keys.get(key)
        if limit is None or state is None:
            return limit is None or limit > 0
        return state.running + len(state.eligible) < limit

    def rank_of(self, queued: QueuedRequest[T]) -> int:
        """Return the number of held requests that rank before this one."""
        return sum(state.held.rank_of(queued.rank) for state in self._keys.values())

    def enqueued(self, queued: QueuedRequest[T]) -> None:
        """Hold a request that was queued, or one that ranks behind it, if too many may run."""
        limit = self._limits.of(queued.flow_key.key)
        if limit is None:
            return
        state = self._keys.setdefault(queued.flow_key.key, _KeyState())
        state.eligible.add(queued.rank, queued)
        if state.running + len(state.eligible) > limit:
            last = state.eligible.last
            state.eligible.discard(last.rank)
            state.held.add(last.rank, last)
            self._hold(last)

    def cancelled(self, queued: QueuedRequest[T]) -> None:
        """Forget a request that left the queue without a slot."""
        state = self._keys.get(queued.flow_key.key)
        if state:
            state.held.discard(queued.rank)
            state.eligible.discard(queued.rank)
            self._update(queued.flow_key.key, state)

    def dispatched(self, queued: QueuedRequest[T]) -> None:
        """Count a request that got a slot."""
        state = self._keys.get(queued.flow_key.key)
        if state:
            state.eligible.discard(queued.rank)
            state.running += 1

    def released(self, queued: QueuedRequest[T]) -> None:
        """Count a request whose slot has been released."""
        state = self._keys.get(queued.flow_key.key)
        if state:
            state.running -= 1
            self._update(queued.flow_key.key, state)

    def _update(self, key: str, state: "_KeyState[T]") -> None:
        limit = self._limits.of(key) or 0
        while state.running + len(state.eligible) < limit and (first := state.held.head):
            state.held.discard(first.rank)
            state.eligible.add(first.rank, first)
            self._resume(first)
        if not (state.running or len(state.eligible) or len(state.held)):
            del self._keys[key]


class _KeyState(Generic[T]):
    __slots__ = ("eligible", "held", "running")

    def __init__(self) -> None:
        self.running = 0
        self.eligible: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
        self.held: SortedList[QueueRank, QueuedRequest[T]] = SortedList()
