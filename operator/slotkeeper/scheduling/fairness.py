"""Turns among keys, as a number that is fixed on arrival."""

from dataclasses import dataclass

from slotkeeper.scheduling.reservation import FlowKey


class RoundRobin:
    """Round robin within a priority: each key has one request a round.

    A request belongs to the round after the one that is being served, or after its key's last,
    whichever is later. So a key that sends a thousand requests delays another's next one by a
    single request, and keys that come and go delay nobody beyond the round that they joined.
    With one key the rounds are the order of arrival. Only keys that wait are known, and those
    that were served in a round to come: any other that comes back joins the next round, which is
    its turn also if it was served in this one. Every operation is O(1) but for forgetting, which
    is so in the mean.
    """

    def __init__(self) -> None:
        self._serving: dict[int, int] = {}  # priority -> round
        self._keys: dict[FlowKey, _KeyState] = {}
        self._served_ahead: set[FlowKey] = set()  # keys that do not wait and are known nevertheless

    def next(self, standing: FlowKey) -> int:
        """The round of a request that arrives."""
        serving = self._serving.get(standing.priority, 0)
        turns = self._keys.get(standing)
        return max(serving, turns.last) + 1 if turns else serving + 1

    def enqueue(self, standing: FlowKey, round_: int) -> None:
        """A request of that round waits."""
        turns = self._keys.get(standing)
        if turns is None:
            self._keys[standing] = _KeyState(round_, 1)
            return
        turns.last = max(turns.last, round_)
        turns.count += 1
        self._served_ahead.discard(standing)

    def leave(self, standing: FlowKey, *, served: bool) -> None:
        """A request waits no more."""
        turns = self._keys[standing]
        turns.count -= 1
        if turns.count:
            return
        if served and turns.last > self._serving.get(standing.priority, 0):
            self._served_ahead.add(standing)
        else:
            del self._keys[standing]

    def start_round(self, standing: FlowKey, round_: int) -> None:
        """The first that waited gets its slot: its round is being served."""
        priority = standing.priority
        if round_ <= self._serving.get(priority, 0):
            return
        self._serving[priority] = round_
        for early in list(self._served_ahead):
            if early.priority == priority and self._keys[early].last <= round_:
                self._served_ahead.remove(early)
                del self._keys[early]


@dataclass(slots=True)
class _KeyState:
    last: int
    """The round of a key's last request."""
    count: int
    """Its requests that wait."""
