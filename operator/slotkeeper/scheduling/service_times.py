"""Arrival rate, completion rate and service time, measured for Retry-After and autoscalers."""

from collections import deque

from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum

MIN_COMPLETIONS = 5
"""Completions after a first one that the mean service time needs."""


class ServiceTimes:
    """Completion rate and mean service time over the last `window` completions."""

    def __init__(self, window: int = 64) -> None:
        self._completions: deque[tuple[float, float]] = deque(
            maxlen=window
        )  # (time, slot-seconds until then)
        self._in_service = TimeWeightedSum()

    def started(self, now: float) -> None:
        """Record that a request was dispatched to a slot."""
        self._in_service.set(self._in_service.value + 1, now)

    def ended(self, now: float) -> None:
        """Record that the slot of a dispatched request was released."""
        self._completions.append((now, self._in_service.total(now)))
        self._in_service.set(self._in_service.value - 1, now)

    def time_for(self, requests: int, now: float) -> float | None:
        """Return the seconds until `requests` more have got a slot; None before two completions.

        Measured up to `now`, so that the estimate grows while no request completes.
        """
        if len(self._completions) < 2:
            return None
        elapsed = now - self._completions[0][0]
        return requests * elapsed / (len(self._completions) - 1)

    def mean_service_seconds(self, now: float) -> float | None:
        """Return the mean service time in seconds; None before enough completions.

        The slot-seconds since the first completion of the window, divided by the completions after
        it. Requests in service count with their time so far, so that longer service times are
        noticed before these requests complete. Source: J. D. C. Little, "A Proof for the Queuing
        Formula: L = λW" (1961).
        """
        completions = len(self._completions) - 1
        if completions < MIN_COMPLETIONS:
            return None
        return (self._in_service.total(now) - self._completions[0][1]) / completions


class Arrivals:
    """Arrival rate over the last minute, counted in whole seconds so that memory is bounded.

    A minute, so that a burst does not count as a high rate: a burst shows in the queue.
    """

    def __init__(self, window: int = 60) -> None:
        self._window = window
        self._counts: deque[tuple[int, int]] = deque()  # (second, arrivals in it), increasing

    def record(self, now: float, slots: int = 1) -> None:
        """Record an arrival, which counts as often as the slots that it needs."""
        second = int(now // 1)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + slots)
        else:
            self._expire(now)
            self._counts.append((second, slots))

    def rate(self, now: float) -> float:
        """Return the arrivals per second over the window that ends `now`."""
        self._expire(now)
        return sum(count for _, count in self._counts) / self._window

    def _expire(self, now: float) -> None:
        while self._counts and self._counts[0][0] <= now - self._window:
            self._counts.popleft()
