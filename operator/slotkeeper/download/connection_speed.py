"""Whether one connection is so fast that several would not be faster."""

from collections.abc import Callable

FAST_BYTES_PER_SECOND = 200e6
"""Several connections together are not faster than that by much, because one process receives and
verifies all bytes; they take more CPU. Limits of hosts for each connection are lower."""

WINDOW_SECONDS = 1.0
PAUSE_SECONDS = 0.1
"""How long a window may pause before its speed counts: on a busy machine, a pause is normal."""


class ConnectionSpeed:
    """The speed of one response, in windows."""

    def __init__(self, clock: Callable[[], float], fast: float | None) -> None:
        """`clock` returns seconds since any fixed time. `fast` is in bytes per second; None if no
        connection is fast enough."""
        self._clock = clock
        self._fast = fast
        self._since = clock()
        self._bytes = 0

    def received(self, size: int) -> bool:
        """Count bytes; return whether the connection is fast enough so far."""
        self._bytes += size
        if self._fast is None:
            return False
        seconds = self._clock() - self._since
        fast = self._bytes >= self._fast * (seconds - PAUSE_SECONDS)
        if seconds >= WINDOW_SECONDS:
            self._since += seconds
            self._bytes = 0
        return fast
