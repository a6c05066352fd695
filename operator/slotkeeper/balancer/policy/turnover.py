"""How fast slots come free: measured, for Retry-After."""

from collections import deque


class Turnover:
    """Slots given back per second, over the last ends."""

    def __init__(self, ends: int = 64) -> None:
        self._ends: deque[float] = deque(maxlen=ends)

    def note(self, now: float) -> None:
        """A slot came free."""
        self._ends.append(now)

    def seconds_for(self, requests: int, now: float) -> float | None:
        """How long it takes until `requests` more have got a slot; None where nothing is known.

        Counted up to `now`, so that the estimate grows while nothing ends.
        """
        if len(self._ends) < 2:
            return None
        elapsed = now - self._ends[0]
        return requests * elapsed / (len(self._ends) - 1)
