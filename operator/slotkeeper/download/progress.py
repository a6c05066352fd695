"""Reports the progress of one file: to the tracker, and every few seconds to the log."""

import logging
from collections.abc import Callable
from pathlib import Path

from slotkeeper.download.partial_file import PartialFile
from slotkeeper.download.tracker import Tracker

log = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 10.0


class Progress:
    """Logs the size of a partial file, and its speed since the last line."""

    def __init__(
        self,
        clock: Callable[[], float],
        path: Path = Path(),
        tracker: Tracker | None = None,
        *,
        header: bool = False,
    ) -> None:
        """`clock` returns seconds since any fixed time; `path` is the file's. With `header`, only
        the header of the file is received, and its size would seem to be what is downloaded."""
        self.clock = clock
        self._path = path
        self._tracker = tracker or Tracker(clock)
        self._header = header
        self._logged_at = clock()
        self._logged_size = 0

    def started(self, part: PartialFile) -> None:
        """Report the start of a response, from which the speed is measured."""
        self._tracker.started(self._path, part.size, part.total)
        if not self._header:
            self._log(part, "downloading")

    def received(self, part: PartialFile) -> None:
        """Report the progress; log it if the interval has passed."""
        self._tracker.received_up_to(self._path, part.size)
        if self.clock() - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._log(part, "received for the header" if self._header else "downloaded")

    def _log(self, part: PartialFile, action: str) -> None:
        now = self.clock()
        seconds = now - self._logged_at
        received = part.size - self._logged_size
        total = f" of {part.total}" if part.total is not None and not self._header else ""
        speed = f", {received / seconds / 1e6:.1f} MB/s" if action != "downloading" else ""
        log.info("%s: %d%s bytes%s", action, part.size, total, speed)
        self._logged_at = now
        self._logged_size = part.size
