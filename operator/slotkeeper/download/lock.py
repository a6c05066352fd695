"""Lock for one download of a file at a time, across pods that share a volume."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


@contextmanager
def file_lock(
    path: Path,
    on_wait: Callable[[], None] | None = None,
    on_locked: Callable[[int], None] | None = None,
) -> Iterator[None]:
    """Lock the file `path`, waiting while another process holds the lock, after `on_wait`.

    `on_locked` is called with its descriptor. The kernel releases the lock when its holder exits.
    The file is kept. The agent of a node's cache may delete it while it holds the lock; then the
    lock of the new file is what counts, for all processes.
    """
    while True:
        with path.open("ab") as file:
            _acquire(file, on_wait)
            if _is_at(path, file):
                if on_locked:
                    on_locked(file.fileno())
                yield
                return


def _acquire(file: BinaryIO, on_wait: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting for another process that downloads this file")
        if on_wait:
            on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the path is still that of the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
