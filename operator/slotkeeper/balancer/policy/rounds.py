"""Turns among keys, as a number that is fixed on arrival."""

from dataclasses import dataclass

from slotkeeper.balancer.policy.ticket import Standing


class Rounds:
    """Round robin within a priority: each key has one request a round.

    A request belongs to the round after the one that is being served, or after its key's last,
    whichever is later. So a key that sends a thousand requests delays another's next one by a
    single request, and keys that come and go delay nobody beyond the round that they joined.
    With one key the rounds are the order of arrival. Every operation is O(1), and only keys that
    wait are known: one that comes back joins the next round, which is its turn also if it was
    served in this one.
    """

    def __init__(self) -> None:
        self._serving: dict[int, int] = {}  # priority -> round
        self._waiting: dict[Standing, _Turns] = {}

    def next(self, standing: Standing) -> int:
        """The round of a request that arrives."""
        serving = self._serving.get(standing.priority, 0)
        turns = self._waiting.get(standing)
        return max(serving, turns.last) + 1 if turns else serving + 1

    def enter(self, standing: Standing, round_: int) -> None:
        """A request of that round waits."""
        turns = self._waiting.get(standing)
        if turns is None:
            self._waiting[standing] = _Turns(round_, 1)
            return
        turns.last = max(turns.last, round_)
        turns.count += 1

    def leave(self, standing: Standing) -> None:
        """A request waits no more."""
        turns = self._waiting[standing]
        turns.count -= 1
        if not turns.count:
            del self._waiting[standing]

    def serve(self, standing: Standing, round_: int) -> None:
        """The first that waited has got its slot: its round is being served."""
        if round_ > self._serving.get(standing.priority, 0):
            self._serving[standing.priority] = round_


@dataclass(slots=True)
class _Turns:
    last: int
    """The round of a key's last request."""
    count: int
    """Its requests that wait."""
