"""Locks of models in a folder, relative to its descriptor, and without waiting."""

import fcntl
import os
import re
import stat
from contextlib import ExitStack

from slotkeeper.folder_descriptor import names_in
from slotkeeper.node_cache.policy import Entry, Mark
from slotkeeper.node_folder import LOCK_SUFFIX, content_id

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_MODEL = re.compile(r"((?:sha256|parts|url)-[0-9a-f]{64})(?:-[0-9]{5}(-of-[0-9]{5}))?[.]gguf")


def open_regular(folder: int, name: str, opened: ExitStack) -> int | None:
    """Open a regular file until `opened` ends; None if it is anything else, or is not there."""
    try:
        descriptor = os.open(name, _OPEN, dir_fd=folder)
    except OSError:
        return None
    opened.callback(os.close, descriptor)
    return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def try_lock(descriptor: int) -> bool:
    """Lock an open file; False if another process holds its lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_unchanged(folder: int, entry: Entry, opened: ExitStack) -> set[str] | None:
    """Lock an entry until `opened` ends; return the names of its lock files.

    None if another process holds a lock, or if the entry has been used since it was read.
    """
    if not entry.marks:
        return _lock_anew(folder, entry, opened)
    if all(_lock_marked(folder, mark, opened) for mark in entry.marks):
        return {mark.file for mark in entry.marks}
    return None


def _lock_marked(folder: int, mark: Mark, opened: ExitStack) -> bool:
    lock = open_regular(folder, mark.file, opened)
    if lock is None or not try_lock(lock):
        return False
    status = os.fstat(lock)
    try:
        at_path = os.stat(mark.file, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    unchanged = (status.st_ino, status.st_mtime_ns) == (mark.inode, mark.used_ns)
    return unchanged and os.path.samestat(status, at_path)


def _lock_anew(folder: int, entry: Entry, opened: ExitStack) -> set[str] | None:
    """Lock an entry without a lock file, by creating the one that the downloader would use."""
    files = (name for name in names_in(folder) if content_id(name) == entry.name)
    locks = {lock for lock in map(_lock_file, files) if lock}
    for name in locks:
        try:
            lock = os.open(name, CREATE, 0o600, dir_fd=folder)
        except FileExistsError:
            # Of a downloader that has started since.
            return None
        opened.callback(os.close, lock)
        if not try_lock(lock):
            return None
    return locks


def _lock_file(file: str) -> str | None:
    found = _MODEL.match(file)
    if found is None:
        return None
    name, count = found.groups()
    return f"{name}{f'-00001{count}' if count else ''}.gguf{LOCK_SUFFIX}"
