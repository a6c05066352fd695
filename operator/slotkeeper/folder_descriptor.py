"""Folders by their descriptors: names in them are opened relative to these, and links not followed.

So others who may write to a folder cannot lead a process out of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Disk:
    """A file system, in bytes."""

    total: int
    free: int


def open_folder(path: str | Path) -> int:
    """Return the descriptor of a folder, which the caller closes. Raises OSError."""
    return os.open(path, _FLAGS)


@contextmanager
def folder_in(parent: int, name: str) -> Iterator[int]:
    """Open a folder in another one, and close it at the end. Raises OSError."""
    folder = os.open(name, _FLAGS, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def names_in(folder: int) -> list[str]:
    """Return the names in a folder. Raises OSError."""
    # By a descriptor of its own: all listings by one share its position, so that of two threads at
    # the same time one may find nothing.
    with folder_in(folder, ".") as own:
        return os.listdir(own)  # noqa: PTH208 (a descriptor)


def disk_of(folder: int) -> Disk:
    """Return the size of a folder's file system, and its free bytes. Raises OSError."""
    status = os.fstatvfs(folder)
    return Disk(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)
