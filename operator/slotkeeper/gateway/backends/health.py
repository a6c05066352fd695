"""The health of a backend, as its responses show it. Pure.

A backend that failed several times in a row gets no requests for a while, which grows with each
further failure: else each request would wait for the same timeout before its fallback.
"""

from slotkeeper.backoff import Backoff

MAX_FAILURES = 3
"""Consecutive failures before the first pause."""

PAUSES = Backoff(first=1.0, maximum=30.0)


class BackendHealth:
    """Counts consecutive failures. Times are seconds of the caller's clock."""

    __slots__ = ("_failures", "_paused_until")

    def __init__(self) -> None:
        self._failures = 0
        self._paused_until = 0.0

    def succeeded(self) -> None:
        """Record a response that is no failure."""
        self._failures = 0
        self._paused_until = 0.0

    def failed(self, now: float) -> None:
        """Record a failure. Those of requests that were sent before a pause do not prolong it."""
        if self.pause(now):
            return
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._paused_until = now + PAUSES.delay(self._failures - MAX_FAILURES + 1)

    def pause(self, now: float) -> float:
        """Return the remaining seconds of the pause; 0 if the backend gets requests."""
        return max(0.0, self._paused_until - now)
