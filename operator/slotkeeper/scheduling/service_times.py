"""How fast requests come and slots come free: measured, for Retry-After and for who scales."""

from collections import deque

from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum

MIN_COMPLETIONS = 5
"""Slots that must have been given back, after a first one, before a mean says anything of them."""


class ServiceTimes:
    """How fast slots come free, and how long each is kept, over the last that were given back."""

    def __init__(self, ends: int = 64) -> None:
        self._completions: deque[tuple[float, float]] = deque(
            maxlen=ends
        )  # (at, slot-seconds till then)
        self._in_service = TimeWeightedSum()

    def started(self, now: float) -> None:
        """A request has got a slot."""
        self._in_service.set(self._in_service.value + 1, now)

    def ended(self, now: float) -> None:
        """A slot came free that a request had got."""
        self._completions.append((now, self._in_service.total(now)))
        self._in_service.set(self._in_service.value - 1, now)

    def time_for(self, requests: int, now: float) -> float | None:
        """How long it takes until `requests` more have got a slot; None where nothing is known.

        Counted up to `now`, so that the estimate grows while nothing ends.
        """
        if len(self._completions) < 2:
            return None
        elapsed = now - self._completions[0][0]
        return requests * elapsed / (len(self._completions) - 1)

    def mean_service_seconds(self, now: float) -> float | None:
        """Seconds that a request keeps its slot, on average; None where too little is known.

        What slots were busy for since the first of the last ends, for each end after it: those
        that still run count with what they have spent, so that longer requests than before are
        noticed while they run. Source: J. D. C. Little, "A Proof for the Queuing Formula: L = λW"
        (1961).
        """
        ends = len(self._completions) - 1
        if ends < MIN_COMPLETIONS:
            return None
        return (self._in_service.total(now) - self._completions[0][1]) / ends


class Arrivals:
    """Requests per second over the last minute, in numbers of whole seconds: bounded memory.

    A minute, so that a burst is no flood: what a burst needs is seen by who waits.
    """

    def __init__(self, window: int = 60) -> None:
        self._window = window
        self._counts: deque[tuple[int, int]] = deque()  # (second, arrivals in it), rising

    def record(self, now: float) -> None:
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
