"""Lock for one download of a file at a time, across pods that share a volume."""

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lock the file `path`, waiting while another process holds the lock, after `on_wait`.

    The kernel releases the lock when its holder exits. The file is kept: after a deletion one
    process could lock a new file while another waits for the old one.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that downloads this file")
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
