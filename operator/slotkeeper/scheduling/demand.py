"""The highest and the mean demand of late, so that who looks now and then misses nothing."""

from collections import deque

from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum


class PeakDemand:
    """A sliding maximum. Demand is a number that holds until the next one is noted."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._peaks: deque[tuple[float, int]] = deque()  # (until when it held, demand), falling
        self._current = 0

    def record(self, demand: int, now: float) -> None:
        """From `now` on the demand is `demand`."""
        ended = self._current
        self._current = demand
        if ended <= demand:
            # The new one is at least as high and outlasts it.
            while self._peaks and self._peaks[-1][1] <= demand:
                self._peaks.pop()
            return
        while self._peaks and self._peaks[-1][1] <= ended:
            self._peaks.pop()
        self._peaks.append((now, ended))

    def peak(self, now: float) -> int:
        """The highest demand within the window that ends `now`."""
        while self._peaks and self._peaks[0][0] < now - self._window:
            self._peaks.popleft()
        return max(self._current, self._peaks[0][1] if self._peaks else 0)


class MeanDemand:
    """A sliding mean over time. Demand is a number that holds until the next one is noted.

    Before it has been noted for a whole window, the mean is that of the time so far.
    """

    def __init__(self, window: float = 600.0, parts: int = 60) -> None:
        """Memory is bounded: `parts` sums at most are kept of a window of so many seconds."""
        self._window = window
        self._part = window / parts
        self._sums: deque[tuple[float, float]] = deque()  # (at, demand times seconds until then)
        self._demand = TimeWeightedSum()

    def record(self, demand: int, now: float) -> None:
        """From `now` on the demand is `demand`."""
        self._advance(now)
        self._demand.set(demand, now)

    def mean(self, now: float) -> float:
        """The mean within the window that ends `now`; 0 where none was ever noted."""
        if not self._sums:
            return 0.0
        total = self._advance(now)
        (start, before) = self._sums[0]
        start_of_window = now - self._window
        if start < start_of_window:
            # Only between two sums, where its rise is as good as even.
            end, after = self._sums[1] if len(self._sums) > 1 else (now, total)
            before += (after - before) * (start_of_window - start) / (end - start)
            start = start_of_window
        return (total - before) / (now - start) if now > start else float(self._demand.value)

    def _advance(self, now: float) -> float:
        total = self._demand.total(now)
        if not self._sums or now - self._sums[-1][0] >= self._part:
            self._sums.append((now, total))
        while len(self._sums) > 1 and self._sums[1][0] <= now - self._window:
            self._sums.popleft()
        return total


class RecentDemand:
    """The highest and the mean demand of late."""

    def __init__(self) -> None:
        self._peak = PeakDemand()
        self._mean = MeanDemand()

    def record(self, demand: int, now: float) -> None:
        """From `now` on the demand is `demand`."""
        self._peak.record(demand, now)
        self._mean.record(demand, now)

    def peak(self, now: float) -> int:
        """The highest within the last five seconds."""
        return self._peak.peak(now)

    def mean(self, now: float) -> float:
        """The mean over the last ten minutes."""
        return self._mean.mean(now)
