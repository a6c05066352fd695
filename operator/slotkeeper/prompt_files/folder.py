"""The folder of prompt files: what the agent does with it.

A file is complete once its record is in place. All changes but the writing of `.part` files are
made under one lock of the folder, which excludes the agents of other replicas. Whatever the step at
which a process is killed: a file without a record, or a record without a file, is removed by the
next sweep. A file that is deleted while a llama-server reads it is read to its end.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from slotkeeper.error_text import describe
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files import storage
from slotkeeper.prompt_files.names import NEW_RECORD, PART, RECORD
from slotkeeper.prompt_files.policy import (
    MAX_FILES,
    ONCE_NS,
    Contents,
    Plan,
    Reason,
    StoredFile,
    is_abandoned,
    is_expired,
    plan,
)
from slotkeeper.prompt_files.record import Content, Record
from slotkeeper.prompt_files.state_file import HEAD_BYTES, find_problem
from slotkeeper.prompt_files.storage import Group, Storage

CHUNK_BYTES = 1024**2
"""Of one read. In between, the reading of a file is given up if nobody waits for it."""

READ_AHEAD_BYTES = 16 * 1024**2
"""What the kernel is asked to read while the part before it is: a disk in the network has a higher
throughput if it is asked for much."""

_log = logging.getLogger(__name__)


class InvalidFileError(Exception):
    """A file is not what it should be. The message states why."""


@dataclass
class Removals:
    """What an operation has removed."""

    names: list[str] = field(default_factory=list)
    """Of complete files of the agent's identity."""
    counts: Counter[Reason] = field(default_factory=Counter)
    """Files of all identities."""
    failures: int = 0
    """Files that could not be removed."""


@dataclass(frozen=True)
class ListedFile:
    """A file that llama-server can restore."""

    name: str
    record: Record
    used_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of the agent's identity, and the size of the whole folder."""

    files: tuple[ListedFile, ...]
    """The last used first."""
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Room:
    """Whether a file fits, after what was removed for it."""

    removals: Removals
    lacking: Reason | None
    """The limit that does not allow it; nothing was removed then."""


class Folder:
    """The folder, for one identity. `model` returns the fingerprint of the model's files.

    Each operation blocks, and may be called from any thread. All raise OSError.
    """

    def __init__(
        self, files: Storage, identity: str, limits: Limits, model: Callable[[], str]
    ) -> None:
        self._storage = files
        self.identity = identity
        self.limits = limits
        self._model = model

    def prepare(self, now_ns: int) -> None:
        """Create the folder of the identity, without which llama-server does not start."""
        try:
            with self._storage.locked():
                try:
                    self._storage.create(self.identity)
                except OSError:
                    # The disk may be full.
                    self._sweep(now_ns, Removals())
                    self._storage.create(self.identity)
                self._mark_used(now_ns)
        except OSError as error:
            # A cache that cannot be changed is no reason not to serve.
            _log.warning("prompt files cannot be saved: %s", describe(error))
            self._storage.create(self.identity)

    def sweep(self, now_ns: int) -> Removals:
        """Mark the identity as used; remove what is left over, expired, or beyond the limits."""
        removals = Removals()
        with self._storage.locked():
            self._storage.create(self.identity)
            self._mark_used(now_ns)
            self._sweep(now_ns, removals)
        return removals

    def list(self) -> Listing:
        """Return the files of the identity that are of the model."""
        contents = self._contents()
        model = self._model()
        own = [each for each in contents.files if each.identity == self.identity]
        files = []
        with self._storage.open(self.identity) as folder:
            for file in sorted(own, key=lambda each: (-each.used_ns, each.name))[:MAX_FILES]:
                record = _record(folder, file.name)
                if record is not None and record.model == model:
                    files.append(ListedFile(file.name, record, file.used_ns))
        return Listing(tuple(files), contents.used_bytes, contents.disk.free)

    def make_room(self, size: int, now_ns: int) -> Room:
        """Remove files until one of so many bytes fits. If it cannot fit, none is removed."""
        removals = Removals()
        with self._storage.locked():
            found = plan(self._contents(), self.limits, size, now_ns)
            if not found.fits:
                return Room(removals, found.reason)
            self._carry_out(found, removals)
        return Room(removals, found.reason if removals.failures else None)

    def commit(
        self, part: str, name: str, content: Content, now_ns: int, *, once: bool = False
    ) -> Removals:
        """Make the file that llama-server has written complete, and keep the limits.

        `once`: its prompt was sent only once.

        Raises InvalidFileError if it is not such a file. It is deleted after any error.
        """
        removals = Removals()
        with self._storage.open(self.identity) as folder:
            try:
                record = Record(content, self._model(), now_ns // 10**9)
                self._check_part(folder, part, content)
                with self._storage.locked():
                    # The new file must never have the record of an earlier one.
                    storage.remove(folder, name)
                    os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                    storage.flush(folder)
                    _complete(folder, name, record, now_ns - ONCE_NS if once else now_ns)
                    self._keep_limits(now_ns, removals)
            except (InvalidFileError, OSError):
                with suppress(OSError):
                    storage.unlink(folder, part)
                raise
        return removals

    def use(self, name: str, now_ns: int, is_given_up: Callable[[], bool]) -> int:
        """Mark a file as used, and read it into the page cache; return its size.

        Raises FileNotFoundError if it is not there. It is deleted if it is not what its record
        states. The reading ends early once `is_given_up`.
        """
        with self._storage.open(self.identity) as folder:
            try:
                with self._open_checked(folder, name) as (descriptor, size):
                    # Before the reading, so that no agent removes it meanwhile. The folder may be
                    # read-only.
                    with suppress(OSError):
                        storage.mark_used(folder, name + RECORD, now_ns)
                    _read_ahead(descriptor, size, is_given_up)
                    return size
            except InvalidFileError as error:
                with self._storage.locked():
                    self._remove_invalid(folder, name)
                raise FileNotFoundError(errno.ENOENT, f"it was invalid: {error}", name) from None

    def remove(self, name: str) -> bool:
        """Delete a file, also one that llama-server has not completed; whether it was there."""
        with self._storage.locked(), self._storage.open(self.identity) as folder:
            was_complete = storage.remove(folder, name)
            return storage.unlink(folder, name + PART) or was_complete

    def _mark_used(self, now_ns: int) -> None:
        with self._storage.open(self.identity) as folder:
            storage.mark_identity_used(folder, now_ns)

    def _contents(self) -> Contents:
        scanned = self._storage.scan()
        files = (
            StoredFile(
                each.identity,
                name,
                group.state.st_size + group.record.st_size,
                group.record.st_mtime_ns,
            )
            for each in scanned
            for name, group in each.groups.items()
            if group.state and group.record
        )
        used = sum(group.bytes for each in scanned for group in each.groups.values())
        identities = {each.identity: each.used_ns for each in scanned}
        return Contents(tuple(files), used, self._storage.disk(), identities)

    def _sweep(self, now_ns: int, removals: Removals) -> None:
        for each in self._storage.scan():
            # Never its own, which has just been marked as used.
            is_old = is_expired(each.used_ns, now_ns)
            try:
                with self._storage.open(each.identity) as folder:
                    for name, group in each.groups.items():
                        if is_old:
                            _remove_all(folder, name, group, removals)
                        else:
                            _remove_left_over(folder, name, group, now_ns, removals)
                if is_old:
                    self._storage.delete(each.identity)
            except OSError as error:
                removals.failures += 1
                _log.warning("folder of identity %s: %s", each.identity, describe(error))
        self._keep_limits(now_ns, removals)

    def _keep_limits(self, now_ns: int, removals: Removals) -> None:
        self._carry_out(plan(self._contents(), self.limits, 0, now_ns), removals)

    def _carry_out(self, found: Plan, removals: Removals) -> None:
        if found.reason is None:
            return
        for file in found.remove:
            try:
                with self._storage.open(file.identity) as folder:
                    storage.remove(folder, file.name)
            except OSError as error:
                removals.failures += 1
                _log.warning("cannot remove %s: %s", file.name, describe(error))
                continue
            removals.counts[found.reason] += 1
            if file.identity == self.identity:
                removals.names.append(file.name)

    def _check_part(self, folder: int, part: str, content: Content) -> None:
        """Check what llama-server has written, and write it to the disk."""
        try:
            with storage.open_regular(folder, part) as (descriptor, size):
                if content.bytes > self.limits.max_bytes:
                    raise InvalidFileError(f"{content.bytes} bytes, more than the limit of all")
                _check_state(descriptor, size, content)
                os.fsync(descriptor)
        except FileNotFoundError:
            raise InvalidFileError("there is no such file") from None

    @contextmanager
    def _open_checked(self, folder: int, name: str) -> Iterator[tuple[int, int]]:
        """Open a complete file; yields its descriptor and size.

        Raises FileNotFoundError if there is none of the current model, InvalidFileError if it is
        not what its record states.
        """
        record = storage.read_record(folder, name)
        if record is None:
            raise InvalidFileError("its record is malformed")
        if record.model != self._model():
            raise FileNotFoundError(errno.ENOENT, "it is of another model", name)
        try:
            with storage.open_regular(folder, name) as (descriptor, size):
                _check_state(descriptor, size, record.content)
                yield descriptor, size
        except FileNotFoundError:
            raise InvalidFileError("it has a record only") from None

    def _remove_invalid(self, folder: int, name: str) -> None:
        # Checked again under the lock: a new file may have been put in its place.
        try:
            with suppress(FileNotFoundError), self._open_checked(folder, name):
                pass
        except InvalidFileError:
            storage.remove(folder, name)


def _check_state(descriptor: int, size: int, content: Content) -> None:
    if size != content.bytes:
        raise InvalidFileError(f"{size} bytes instead of {content.bytes}")
    problem = find_problem(os.pread(descriptor, HEAD_BYTES, 0), size, content.tokens)
    if problem:
        raise InvalidFileError(problem)


def _complete(folder: int, name: str, record: Record, used_ns: int) -> None:
    try:
        storage.write_record(folder, name, record, used_ns)
    except OSError:
        # The disk is full: what is left would take room until the next sweep.
        with suppress(OSError):
            storage.unlink(folder, name + NEW_RECORD)
            storage.remove(folder, name)
        raise


def _record(folder: int, name: str) -> Record | None:
    """Return the record of a file that has the size that the record states."""
    try:
        record = storage.read_record(folder, name)
        if record is None:
            return None
        with storage.open_regular(folder, name) as (_, size):
            return record if size == record.content.bytes else None
    except FileNotFoundError:
        return None


def _read_ahead(descriptor: int, size: int, is_given_up: Callable[[], bool]) -> None:
    """Read a file into the page cache."""
    buffer = bytearray(CHUNK_BYTES)
    requested = position = 0
    while position < size and not is_given_up():
        if position + READ_AHEAD_BYTES > requested and requested < size:
            os.posix_fadvise(descriptor, requested, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            requested += READ_AHEAD_BYTES
        count = os.preadv(descriptor, [buffer], position)
        if not count:
            raise InvalidFileError("it has become shorter")
        position += count


def _remove_all(folder: int, name: str, group: Group, removals: Removals) -> None:
    storage.remove(folder, name)
    for file in (name + NEW_RECORD, name + PART, *group.strange):
        storage.unlink(folder, file)
    removals.counts[Reason.EXPIRED] += 1


def _remove_left_over(
    folder: int, name: str, group: Group, now_ns: int, removals: Removals
) -> None:
    """Remove what a process that was killed, or something else, has left of a name."""
    for file, reason in _left_over(folder, name, group, now_ns):
        if storage.unlink(folder, file):
            removals.counts[reason] += 1


def _left_over(folder: int, name: str, group: Group, now_ns: int) -> Iterator[tuple[str, Reason]]:
    for file in group.strange:
        yield file, Reason.INVALID
    if group.new_record:
        yield name + NEW_RECORD, Reason.INCOMPLETE
    if group.part and is_abandoned(group.part.st_mtime_ns, now_ns):
        yield name + PART, Reason.INCOMPLETE
    if group.state and group.record:
        if _record(folder, name) is None:
            yield name + RECORD, Reason.INVALID
            yield name, Reason.INVALID
    elif group.record:
        yield name + RECORD, Reason.INCOMPLETE
    elif group.state:
        yield name, Reason.INCOMPLETE
