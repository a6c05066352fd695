"""Peak and mean demand over sliding windows, so that a periodic poll misses nothing.

Demand is a step function of time: each recorded value holds until the next one.
"""

from collections import deque

from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum


class PeakDemand:
    """Maximum demand over a sliding window of `window` seconds."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._peaks: deque[tuple[float, int]] = deque()  # (end of the step, demand), decreasing
        self._current = 0

    def record(self, demand: int, now: float) -> None:
        """Set the demand from `now` on."""
        ended = self._current
        self._current = demand
        if ended <= demand:
            # The new step is at least as high, and stays in the window for longer.
            while self._peaks and self._peaks[-1][1] <= demand:
                self._peaks.pop()
            return
        while self._peaks and self._peaks[-1][1] <= ended:
            self._peaks.pop()
        self._peaks.append((now, ended))

    def peak(self, now: float) -> int:
        """Return the maximum over the window that ends `now`."""
        while self._peaks and self._peaks[0][0] < now - self._window:
            self._peaks.popleft()
        return max(self._current, self._peaks[0][1] if self._peaks else 0)


class MeanDemand:
    """Time-weighted mean demand over a sliding window of `window` seconds.

    Until a whole window has been recorded, the mean over the time so far.
    """

    def __init__(self, window: float = 600.0, buckets: int = 60) -> None:
        """Memory is bounded: at most `buckets` cumulative sums are kept per window."""
        self._window = window
        self._bucket = window / buckets
        self._sums: deque[tuple[float, float]] = deque()  # (time, demand * seconds until then)
        self._demand = TimeWeightedSum()

    def record(self, demand: int, now: float) -> None:
        """Set the demand from `now` on."""
        self._advance(now)
        self._demand.set(demand, now)

    def mean(self, now: float) -> float:
        """Return the mean over the window that ends `now`; 0 before the first record."""
        if not self._sums:
            return 0.0
        total = self._advance(now)
        (start, before) = self._sums[0]
        window_start = now - self._window
        if start < window_start:
            # Interpolated between two sums: within one bucket the sum grows almost evenly.
            end, after = self._sums[1] if len(self._sums) > 1 else (now, total)
            before += (after - before) * (window_start - start) / (end - start)
            start = window_start
        return (total - before) / (now - start) if now > start else float(self._demand.value)

    def _advance(self, now: float) -> float:
        total = self._demand.total(now)
        if not self._sums or now - self._sums[-1][0] >= self._bucket:
            self._sums.append((now, total))
        while len(self._sums) > 1 and self._sums[1][0] <= now - self._window:
            self._sums.popleft()
        return total


class DemandStatistics:
    """Peak demand over five seconds and mean demand over ten minutes."""

    def __init__(self) -> None:
        self._peak = PeakDemand()
        self._mean = MeanDemand()

    def record(self, demand: int, now: float) -> None:
        """Set the demand from `now` on."""
        self._peak.record(demand, now)
        self._mean.record(demand, now)

    def peak(self, now: float) -> int:
        """Return the maximum over the last five seconds."""
        return self._peak.peak(now)

    def mean(self, now: float) -> float:
        """Return the mean over the last ten minutes."""
        return self._mean.mean(now)
