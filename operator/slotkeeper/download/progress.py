"""Logs the progress of a download every few seconds."""

import logging
from collections.abc import Callable

from slotkeeper.download.partial_file import PartialFile

log = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 10.0


class Progress:
    """Logs the size of a partial file, and its speed since the last line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds since any fixed time."""
        self.clock = clock
        self._logged_at = clock()
        self._logged_size = 0

    def started(self, part: PartialFile) -> None:
        """Log the start of a response, from which the speed is measured."""
        self._log(part, "downloading")

    def received(self, part: PartialFile) -> None:
        """Log the progress if the interval has passed."""
        if self.clock() - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._log(part, "downloaded")

    def _log(self, part: PartialFile, action: str) -> None:
        now = self.clock()
        seconds = now - self._logged_at
        received = part.size - self._logged_size
        total = f" of {part.total}" if part.total is not None else ""
        speed = f", {received / seconds / 1e6:.1f} MB/s" if action == "downloaded" else ""
        log.info("%s: %d%s bytes%s", action, part.size, total, speed)
        self._logged_at = now
        self._logged_size = part.size
