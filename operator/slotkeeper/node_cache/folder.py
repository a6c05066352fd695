"""The folder of a node's cache on the disk: reading it, and removing models from it.

Why no file is removed that a pod uses
--------------------------------------

A pod that uses a model first downloads or verifies it, in its init container. This

  D1  locks the model's lock file, and checks that it is still at its path;
  D2  changes the mark: the modification time of the lock file, which never decreases;
  D3  puts the files in place, or finds them there;
  D4  releases the lock.

The containers that read the model start after D4. The agent, in each sweep,

  A1  reads the folder, with the mark of each model;
  A2  lists the pods of the node, in a read that is consistent: it has every pod that was bound to
      the node before A2 began;
  A3  locks the lock file of a model that no listed pod uses, without waiting, and checks that it is
      still at its path;
  A4  keeps the model unless its mark is the one that was read at A1;
  A5  removes its files, at last the lock file, and releases the lock.

Assume that A5 removes the files of a model which a pod P of this node needs: D4 of P was before
A5, or D1 to D4 are after A5. In the second case D3 finds no file, and downloads it again. In the
first case D2 of P was before A3, since the lock admits one of them at a time. It was also before
A1: otherwise the mark at A4 would not be that of A1, as marks never repeat. P started after it had
been bound to the node, so it was bound before A1 and thus before A2, and it is in the list, unless
it has been deleted or has ended: it needs no file any more. So A3 was not for this model, which is
a contradiction. No clock is compared in this, only the order of events on one node and of reads of
the API server.

The path is checked at D1 and A3 because A5 deletes the lock file: a process that has waited for the
deleted file holds a lock that no other process sees, and begins anew.

If the agent is killed, the kernel releases its lock. The records of files are removed before the
files, and the lock file last: what is left is either in use again, or an incomplete model, which a
later sweep removes. If the list of pods cannot be read, nothing is removed.

A pod that is deleted by force may still run. It keeps its open and mapped files, which the disk
frees when it ends.

Links
-----

The agent may be given any names: of links, sockets and folders. Each operation is relative to the
descriptor of a folder, with names without a slash, and follows no symbolic link. Locks are opened
without blocking, and only regular files are locked. A hard link counts once, and its removal
removes the name only.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slotkeeper.folder_descriptor import Disk, disk_of, folder_in, names_in, open_folder
from slotkeeper.node_cache.locks import CREATE, lock_unchanged, open_regular, try_lock
from slotkeeper.node_cache.policy import Entry, Mark
from slotkeeper.node_cache.usage import is_namespace
from slotkeeper.node_folder import (
    LIMITS_FILE,
    LOCK_SUFFIX,
    ROOM_SUFFIX,
    Limits,
    content_id,
    mark_used,
)

_BLOCK_BYTES = 512
"""Of `st_blocks`, whatever the file system's."""

_MAX_REQUEST = 20
"""Digits of a request for room."""


@dataclass(frozen=True)
class Scan:
    """What the folder contains."""

    entries: tuple[Entry, ...]
    disk: Disk
    foreign: int
    """Files and folders that are not of the cache. They are left alone."""


class Folder:
    """The folder of the cache, by its descriptor."""

    def __init__(self, path: Path) -> None:
        self._root = open_folder(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def scan(self) -> Scan:
        """Read the folder. Raises OSError."""
        entries: list[Entry] = []
        foreign = 0
        inodes: set[tuple[int, int]] = set()
        for namespace in sorted(names_in(self._root)):
            try:
                with self._open(namespace) as folder:
                    grouped, others = _grouped(folder)
                    foreign += others
                    entries += (
                        _entry(folder, namespace, name, files, inodes)
                        for name, files in grouped.items()
                    )
            except OSError:
                # A file or a link, or deleted meanwhile.
                foreign += not namespace.startswith(_NEW)
        return Scan(tuple(entries), disk_of(self._root), foreign)

    def prepare(self, namespace: str, limits: Limits) -> None:
        """Create the folder of a namespace, unless it exists, with these limits. Raises OSError."""
        content = limits.to_json().encode()
        if namespace in names_in(self._root):
            with self._open(namespace) as folder:
                _replace(folder, LIMITS_FILE, content)
            return
        # Under another name first: a pod must never see it without the limits.
        new = f"{_NEW}{namespace}"
        with suppress(FileExistsError):
            os.mkdir(new, 0o700, dir_fd=self._root)
        with self._open(new) as folder:
            _replace(folder, LIMITS_FILE, content)
        os.rename(new, namespace, src_dir_fd=self._root, dst_dir_fd=self._root)

    def namespaces(self) -> list[str]:
        """Return the namespaces that have a folder."""
        found = []
        for name in filter(is_namespace, names_in(self._root)):
            with suppress(OSError), self._open(name):
                found.append(name)
        return sorted(found)

    def mark_used(self, entry: Entry, now_ns: int) -> None:
        """Mark an entry as used. Raises OSError."""
        with self._open(entry.namespace) as folder, ExitStack() as opened:
            for mark in entry.marks:
                lock = open_regular(folder, mark.file, opened)
                if lock is not None:
                    mark_used(lock, now_ns)

    def remove(self, entry: Entry) -> bool:
        """Remove the files of an entry that no pod uses: steps A3 to A5.

        Returns False, without a change, if it has been used since the scan, or is now. Raises
        OSError: some of its files may then be left.
        """
        with self._open(entry.namespace) as folder, ExitStack() as opened:
            locks = lock_unchanged(folder, entry, opened)
            names = set(_grouped(folder)[0].get(entry.name, {}))
            if locks is None or {name for name in names if name.endswith(LOCK_SUFFIX)} != locks:
                return False
            for name in sorted(names - locks, key=_records_first):
                os.unlink(name, dir_fd=folder)
            for name in locks:
                os.unlink(name, dir_fd=folder)
            return True

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        if not is_namespace(name.removeprefix(_NEW)):
            raise FileNotFoundError(name)
        with folder_in(self._root, name) as folder:
            yield folder


_NEW = ".new-"
"""Prefix of the folder of a namespace that is being created."""


def give_to(path: Path, user: int) -> None:
    """Give the folder, as root with CAP_CHOWN only, to the user of the pods. Raises OSError."""
    folder = open_folder(path)
    try:
        status = os.fstat(folder)
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (user, user, 0o755):
            return
        # Only its owner may change the mode.
        os.fchown(folder, os.geteuid(), user)
        os.fchmod(folder, 0o755)
        os.fchown(folder, user, user)
    finally:
        os.close(folder)


_Files = dict[str, os.stat_result]


def _grouped(folder: int) -> tuple[dict[str, _Files], int]:
    """The files of a folder by content ID, and the number of the others, with all folders in it:
    they are not removed, and must not keep the files of a model."""
    grouped: dict[str, _Files] = {}
    others = 0
    for name in sorted(names_in(folder)):
        model = content_id(name)
        if model is None:
            others += name not in {LIMITS_FILE, f"{_NEW}{LIMITS_FILE}"}
            continue
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                others += 1
                continue
            grouped.setdefault(model, {})[name] = status
    return grouped, others


def _entry(
    folder: int, namespace: str, name: str, files: _Files, inodes: set[tuple[int, int]]
) -> Entry:
    locks = {file: status for file, status in files.items() if file.endswith(LOCK_SUFFIX)}
    marks = tuple(Mark(file, each.st_ino, each.st_mtime_ns) for file, each in locks.items())
    changes = [status.st_mtime_ns for status in files.values()]
    models = [file for file in files if file.endswith(".gguf")]
    size = 0
    for status in files.values():
        if (status.st_dev, status.st_ino) not in inodes:
            inodes.add((status.st_dev, status.st_ino))
            size += status.st_blocks * _BLOCK_BYTES
    return Entry(
        namespace,
        name,
        marks,
        used_ns=max([mark.used_ns for mark in marks] or changes),
        size=size,
        files=len(files),
        complete=bool(models)
        and all(f"{file}.json" in files for file in models)
        and not any(file.endswith(".part") for file in files),
        requested=_requested(folder, files),
    )


def _requested(folder: int, files: Iterable[str]) -> int:
    """The free bytes that downloads request: a request that was left by a kill has no lock."""
    total = 0
    for name in files:
        if not name.endswith(ROOM_SUFFIX):
            continue
        with ExitStack() as opened, suppress(OSError):
            request = open_regular(folder, name, opened)
            if request is None or try_lock(request):
                continue
            text = os.read(request, _MAX_REQUEST + 1)
            if len(text) <= _MAX_REQUEST and text.isdigit():
                total += int(text)
    return total


def _records_first(name: str) -> tuple[bool, str]:
    return not name.endswith(".json"), name


def _replace(folder: int, name: str, content: bytes) -> None:
    """Write a file, which no reader ever sees in part."""
    new = f"{_NEW}{name}"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    descriptor = os.open(new, CREATE, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
