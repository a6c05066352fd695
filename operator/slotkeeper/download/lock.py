"""One download at a time of one file, also between pods that share a volume."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for as long as another process holds it.

    The lock ends with its holder, however it ends. The file stays: removing it would let a
    newcomer lock a new file while another still waits for the old one.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is downloading this model: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
