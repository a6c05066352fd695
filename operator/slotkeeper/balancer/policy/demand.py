"""The highest demand of the last seconds, so that who looks now and then misses nothing."""

from collections import deque


class PeakDemand:
    """A sliding maximum. Demand is a number that holds until the next one is noted."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._peaks: deque[tuple[float, int]] = deque()  # (until when it held, demand), falling
        self._current = 0

    def note(self, demand: int, now: float) -> None:
        """From `now` on the demand is `demand`."""
        ended, self._current = self._current, demand
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
