"""The single steps on the folder: each by the descriptor of a folder, and following no link.

llama-server may put anything into the folder: a link, a pipe, a folder with the name of a file.
Nothing here opens one of these, or waits for it.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from slotkeeper.folder_descriptor import Disk, disk_of, folder_in, names_in, open_folder
from slotkeeper.prompt_files.names import (
    IDENTITY,
    LOCK,
    NEW_RECORD,
    PART,
    RECORD,
    USED,
    split,
)
from slotkeeper.prompt_files.record import MAX_RECORD_BYTES, Record

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

LOCK_SECONDS = 10.0
"""How long a change waits for those of other threads, and of the agents of other replicas."""

_LOCK_POLL_SECONDS = 0.05


@dataclass
class Group:
    """The files of one name. A file that is none, such as a link, is only in `strange`."""

    state: os.stat_result | None = None
    record: os.stat_result | None = None
    new_record: os.stat_result | None = None
    part: os.stat_result | None = None
    strange: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        files = (self.state, self.record, self.new_record, self.part)
        return sum(each.st_size for each in files if each)


@dataclass(frozen=True)
class IdentityFiles:
    """The folder of one identity."""

    identity: str
    used_ns: int
    groups: Mapping[str, Group]
    """By name."""


class Storage:
    """The folder, by its descriptor. `sleep` waits for so many seconds."""

    def __init__(self, path: Path, sleep: Callable[[float], None]) -> None:
        self._root = open_folder(path)
        self._sleep = sleep
        self._threads = Lock()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude all other changes, those of other agents too. Raises OSError.

        TimeoutError if that takes too long. The kernel releases the lock of a process that ends.
        """
        if not self._threads.acquire(timeout=LOCK_SECONDS):
            raise TimeoutError("another change of the folder takes too long")
        try:
            lock = os.open(LOCK, _WRITE, 0o600, dir_fd=self._root)
            try:
                self._flock(lock)
                yield
            finally:
                os.close(lock)
        finally:
            self._threads.release()

    def _flock(self, lock: int) -> None:
        # Not a call that blocks: no request could be given up, and the process could not end.
        for _ in range(int(LOCK_SECONDS / _LOCK_POLL_SECONDS)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._sleep(_LOCK_POLL_SECONDS)
            else:
                return
        raise TimeoutError("another agent keeps the folder locked")

    def create(self, identity: str) -> None:
        """Create the folder of an identity unless it exists. Raises OSError."""
        with suppress(FileExistsError):
            os.mkdir(identity, 0o700, dir_fd=self._root)
        with self.open(identity):
            pass

    def open(self, identity: str) -> AbstractContextManager[int]:
        """Open the folder of an identity. Raises OSError."""
        return folder_in(self._root, identity)

    def delete(self, identity: str) -> None:
        """Delete the folder of an identity, unless it has files of others. Raises OSError."""
        with self.open(identity) as folder:
            unlink(folder, USED)
        os.rmdir(identity, dir_fd=self._root)

    def scan(self) -> list[IdentityFiles]:
        """Return what the folders of identities contain. Raises OSError."""
        found = []
        for identity in sorted(filter(IDENTITY.fullmatch, names_in(self._root))):
            # A file or a link, or deleted meanwhile.
            with suppress(FileNotFoundError, NotADirectoryError), self.open(identity) as folder:
                groups = groups_in(folder)
                used_ns = _used_ns(folder, is_empty=not groups)
                found.append(IdentityFiles(identity, used_ns, groups))
        return found

    def disk(self) -> Disk:
        """Return the size of the file system, and its free bytes. Raises OSError."""
        return disk_of(self._root)


def groups_in(folder: int) -> dict[str, Group]:
    """Return the files in the folder of an identity, by name. Raises OSError."""
    groups: dict[str, Group] = {}
    for file in names_in(folder):
        parts = split(file)
        if parts is None:
            continue
        name, suffix = parts
        try:
            status = os.stat(file, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        group = groups.setdefault(name, Group())
        if not stat.S_ISREG(status.st_mode):
            group.strange.append(file)
        elif suffix == RECORD:
            group.record = status
        elif suffix == NEW_RECORD:
            group.new_record = status
        elif suffix == PART:
            group.part = status
        else:
            group.state = status
    return groups


@contextmanager
def open_regular(folder: int, file: str) -> Iterator[tuple[int, int]]:
    """Open a regular file; yields its descriptor and size.

    Raises OSError: FileNotFoundError for anything but a regular file.
    """
    try:
        descriptor = os.open(file, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _no_file(file) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(file)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_record(folder: int, name: str) -> Record | None:
    """Read the record of a file; None if it is malformed. Raises OSError."""
    with open_regular(folder, name + RECORD) as (descriptor, _):
        return Record.from_json(os.read(descriptor, MAX_RECORD_BYTES))


def write_record(folder: int, name: str, record: Record, used_ns: int) -> None:
    """Put a record in place, after which its file is complete. Raises OSError.

    `used_ns`: the time of the file's last use.
    """
    new = name + NEW_RECORD
    descriptor = os.open(new, _WRITE | os.O_TRUNC, 0o600, dir_fd=folder)
    try:
        content = record.to_json()
        while content:
            content = content[os.write(descriptor, content) :]
        os.utime(descriptor, ns=(used_ns, used_ns))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, name + RECORD, src_dir_fd=folder, dst_dir_fd=folder)
    flush(folder)


def mark_used(folder: int, file: str, now_ns: int) -> None:
    """Set the time of the last use of a record or an identity. Raises OSError."""
    os.utime(file, ns=(now_ns, now_ns), dir_fd=folder, follow_symlinks=False)


def mark_identity_used(folder: int, now_ns: int) -> None:
    """Set the time of the last use of an identity. Raises OSError."""
    descriptor = os.open(USED, _WRITE, 0o600, dir_fd=folder)
    try:
        os.utime(descriptor, ns=(now_ns, now_ns))
    finally:
        os.close(descriptor)


def flush(folder: int) -> None:
    """Write the names in a folder to the disk, where the file system can do that."""
    with suppress(OSError):
        os.fsync(folder)


def unlink(folder: int, file: str) -> bool:
    """Delete a file; whether it was there. A folder stays. Raises OSError."""
    try:
        os.unlink(file, dir_fd=folder)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def remove(folder: int, name: str) -> bool:
    """Delete a file and its record; whether one was there. Raises OSError."""
    # The record first: without it the file is incomplete, and removed by the next sweep.
    recorded = unlink(folder, name + RECORD)
    return unlink(folder, name) or recorded


def _no_file(file: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no regular file", file)


def _used_ns(folder: int, *, is_empty: bool) -> int:
    with suppress(FileNotFoundError):
        return os.stat(USED, dir_fd=folder, follow_symlinks=False).st_mtime_ns
    # Its agent was killed before it had made the mark, or while it deleted the folder.
    return 0 if is_empty else os.fstat(folder).st_mtime_ns
