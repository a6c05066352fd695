"""Turns among keys, as a number that is fixed on arrival."""

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
        self._last: dict[Standing, int] = {}  # the round of a key's last request
        self._waiting: dict[Standing, int] = {}  # how many requests

    def next(self, standing: Standing) -> int:
        """The round of a request that arrives."""
        serving = self._serving.get(standing.priority, 0)
        return max(serving, self._last.get(standing, 0)) + 1

    def enter(self, standing: Standing, round_: int) -> None:
        """A request of that round waits."""
        self._last[standing] = max(round_, self._last.get(standing, 0))
        self._waiting[standing] = self._waiting.get(standing, 0) + 1

    def leave(self, standing: Standing) -> None:
        """A request waits no more."""
        self._waiting[standing] -= 1
        if not self._waiting[standing]:
            del self._waiting[standing], self._last[standing]

    def serve(self, standing: Standing, round_: int) -> None:
        """The first that waited has got its slot: its round is being served."""
        priority = standing.priority
        self._serving[priority] = max(round_, self._serving.get(priority, 0))
