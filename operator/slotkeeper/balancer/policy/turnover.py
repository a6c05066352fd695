"""How fast requests come and slots come free: measured, for Retry-After and for who scales."""

from collections import deque


class Turnover:
    """Slots given back per second, and how long each was held, over the last ends."""

    def __init__(self, ends: int = 64) -> None:
        self._ends: deque[tuple[float, float]] = deque(maxlen=ends)
        self._held: float | None = None  # their mean, where it was asked for since the last one

    def note(self, now: float, held: float) -> None:
        """A slot came free that was held for `held` seconds."""
        self._ends.append((now, held))
        self._held = None

    def seconds_for(self, requests: int, now: float) -> float | None:
        """How long it takes until `requests` more have got a slot; None where nothing is known.

        Counted up to `now`, so that the estimate grows while nothing ends.
        """
        if len(self._ends) < 2:
            return None
        elapsed = now - self._ends[0][0]
        return requests * elapsed / (len(self._ends) - 1)

    @property
    def held(self) -> float | None:
        """Seconds that a request keeps its slot, on average; None where nothing is known."""
        if self._held is None and self._ends:
            self._held = sum(held for _, held in self._ends) / len(self._ends)
        return self._held


class Arrivals:
    """Requests per second over the last minute, in numbers of whole seconds: bounded memory.

    A minute, so that a burst is no flood: what a burst needs is seen by who waits.
    """

    def __init__(self, window: int = 60) -> None:
        self._window = window
        self._counts: deque[tuple[int, int]] = deque()  # (second, arrivals in it), rising

    def note(self, now: float) -> None:
        """One has come."""
        second = int(now // 1)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + 1)
        else:
            self._forget(now)
            self._counts.append((second, 1))

    def rate(self, now: float) -> float:
        """Requests per second over the window that ends `now`."""
        self._forget(now)
        return sum(count for _, count in self._counts) / self._window

    def _forget(self, now: float) -> None:
        while self._counts and self._counts[0][0] <= now - self._window:
            self._counts.popleft()
