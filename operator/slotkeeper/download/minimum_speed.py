"""Ends responses of hosts that send almost nothing: a few bytes are enough to avoid a timeout."""

from collections.abc import Callable

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

WINDOW_SECONDS = 60.0
MINIMUM_BYTES = 64 * 1024
"""In a window. 40 GB would take more than a year."""


class MinimumSpeed:
    """The speed of one response, in windows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds since any fixed time."""
        self._clock = clock
        self._since = clock()
        self._bytes = 0

    def received(self, size: int) -> None:
        """Count bytes. Raises DownloadError at the end of a window with too few of them."""
        self._bytes += size
        seconds = self._clock() - self._since
        if seconds < WINDOW_SECONDS:
            return
        if self._bytes < MINIMUM_BYTES:
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_INCOMPLETE,
                f"the model host sent only {self._bytes} bytes in {seconds:.0f} s",
                stalled=True,
            )
        self._since += seconds
        self._bytes = 0
