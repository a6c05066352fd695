"""How far a download is, in one log line every few seconds."""

import logging
from collections.abc import Callable

from slotkeeper.download.partial_file import PartialFile

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Says how far a part has grown, and how quickly since the last line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds from any fixed point."""
        self._clock = clock
        self._said_at = clock()
        self._said_size = 0

    def begins(self, part: PartialFile) -> None:
        """Say where an answer's bytes begin: speed counts from here."""
        self._say(part, "downloading")

    def grew(self, part: PartialFile) -> None:
        """Say something if it is time to."""
        if self._clock() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._say(part, "downloaded")

    def _say(self, part: PartialFile, what: str) -> None:
        now = self._clock()
        seconds = now - self._said_at
        grown = part.size - self._said_size
        of = f" of {part.total}" if part.total is not None else ""
        at = f", {grown / seconds / 1e6:.1f} MB/s" if what == "downloaded" else ""
        log.info("%s: %d%s bytes%s", what, part.size, of, at)
        self._said_at = now
        self._said_size = part.size
