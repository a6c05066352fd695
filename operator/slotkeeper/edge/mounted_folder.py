"""The files of a Secret or a ConfigMap that Kubernetes mounts as a folder."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and modification time of each file, in order."""


def signature_of(path: Path) -> Signature:
    """Return what differs after each change of a folder. Raises OSError."""
    return tuple(sorted(_files(path)))


def _files(path: Path) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".."):
                continue  # Kubernetes keeps the files here, and links to them beside it
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # Kubernetes removes a file a moment before the link to it
            if stat.S_ISREG(status.st_mode):
                yield entry.name, status.st_ino, status.st_size, status.st_mtime_ns
