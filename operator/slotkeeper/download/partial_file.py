"""The partial file next to the target, until the download is complete."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from slotkeeper.download.digest import Digest
from slotkeeper.download.records import PartialRecord, sync_folder, write

HEAD_SIZE = 4
FIRST_HEADER_CHECK = 64 * 1024
READ_SIZE = 256 * 1024
WRITE_BUFFER = 128 * 1024
WRITEBACK_BYTES = 16 * 1024**2

Open = Callable[[Path, str], BinaryIO]
"""(path, mode) -> file. Tests replace it to simulate a full disk."""


def open_file(path: Path, mode: str) -> BinaryIO:
    """Open a file with a buffer for small chunks; larger blocks are written without a copy."""
    return cast("BinaryIO", path.open(mode, buffering=WRITE_BUFFER))


class PartialFile:
    """An incomplete download: its bytes on disk; their size, first bytes and digest in memory.

    A partial file of an earlier process is resumed only if its record has the same source and a
    validator for If-Range. Its digest is then computed again.
    """

    def __init__(self, path: Path, source: str, opener: Open = open_file) -> None:
        self.path = path
        self.source = source
        self.validator: str | None = None
        """Value of If-Range; None if the download cannot be resumed."""
        self.total: int | None = None
        """Size of the complete file in bytes; None if unknown."""
        self.size = 0
        self.head = b""
        """The first 4 bytes, or fewer if the file is shorter."""
        self.header_check_size = FIRST_HEADER_CHECK
        """For the checks of the content: the size from which on the GGUF header is read next."""
        self._record_path = path.with_name(path.name + ".json")
        self._digest = Digest()
        self._written_back = 0
        record = PartialRecord.read(self._record_path)
        reusable = record is not None and record.source == source and path.exists()
        self._opener = opener
        self._file = opener(path, "r+b") if reusable else self._open_new()
        if reusable and record is not None:
            self.validator = record.validator
            self.total = record.total
            while chunk := self._file.read(READ_SIZE):
                self._count(chunk)
            self._written_back = self.size

    @property
    def sha256(self) -> str:
        """SHA-256 of the current bytes, in hex."""
        return self._digest.hexdigest()

    @property
    def complete(self) -> bool:
        """Whether all bytes that the server announced have been received."""
        return self.size == self.total

    @property
    def header_accepted(self) -> bool:
        """Whether the GGUF header was read and fits the file."""
        return self.header_check_size == sys.maxsize

    @property
    def content_size(self) -> int:
        """Current size of the file: of its bytes, if others are transferred with them."""
        return self.size

    @property
    def content_total(self) -> int | None:
        """Size of the complete file; None if unknown."""
        return self.total

    @property
    def has_content(self) -> bool:
        """Whether the file is part of what has been transferred."""
        return True

    def content_after(self, more: int) -> int:
        """The size that the file has after `more` transferred bytes, at most."""
        return self.size + more

    def finish(self) -> None:
        """Verify what has been transferred with the file. Raises DownloadError."""

    def restart(self, *, validator: str | None, total: int | None) -> None:
        """Discard all bytes. New ones can be resumed only with a validator and a total."""
        # The record is deleted first: it must never describe bytes of another version.
        self._record_path.unlink(missing_ok=True)
        if self.size:
            with suppress(OSError):  # its bytes are not needed
                self._file.close()
            self._file = self._open_new()
        self.size = 0
        self.head = b""
        self.header_check_size = FIRST_HEADER_CHECK
        self._digest.close()
        self._digest = Digest()
        self._written_back = 0
        self.validator = None
        self.total = total
        if validator is not None and total is not None:
            self.validator = validator
            write(self._record_path, PartialRecord(self.source, validator, total))

    def append(self, chunk: bytes | memoryview) -> None:
        """Append bytes, which must not change until the next call of any method has returned."""
        self._count(chunk)
        self._file.write(chunk)
        if self.size - self._written_back >= WRITEBACK_BYTES:
            self._start_writeback()

    def open_head(self) -> BinaryIO:
        """Open the current bytes for reading."""
        self._file.flush()
        return self.path.open("rb")

    def place(self, path: Path) -> None:
        """Sync the bytes to the disk, then rename the file to `path`."""
        self._file.flush()
        self._require_own()
        os.fsync(self._file.fileno())
        self.path.replace(path)
        self._record_path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def discard(self) -> None:
        """Delete the file and its record."""
        self._record_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing flushes the buffer. After a failed write it fails again, but the first error is
        # the relevant one; after place() the buffer is empty.
        with suppress(OSError):
            self._file.close()
        self._digest.close()

    def _open_new(self) -> BinaryIO:
        """Create the file. One that exists is not emptied, but replaced: `_require_own` then finds
        out in another process that writes it."""
        self.path.unlink(missing_ok=True)
        return self._opener(self.path, "w+b")

    def _require_own(self) -> None:
        """Raise OSError if another process has moved or replaced the file: on volumes whose locks
        do not work between nodes, two may write it. It may be a model in use by now."""
        own = os.fstat(self._file.fileno())
        try:
            same = os.path.samestat(self.path.stat(), own)
        except FileNotFoundError:
            same = False
        if not same:
            raise OSError(errno.EBUSY, "another process writes it: the volume must support locks")

    def _start_writeback(self) -> None:
        """Let the kernel write the last bytes to the disk, without waiting for it.

        Otherwise it may collect many GB, for which place() would wait: minutes without progress.
        """
        # For pages that are not on the disk yet, this advice does that, and nothing else.
        with suppress(OSError):  # the file system does not support it
            os.posix_fadvise(
                self._file.fileno(),
                self._written_back,
                self.size - self._written_back,
                os.POSIX_FADV_DONTNEED,
            )
        self._written_back = self.size

    def _count(self, chunk: bytes | memoryview) -> None:
        self.size += len(chunk)
        self._count_content(chunk)

    def _count_content(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        if len(self.head) < HEAD_SIZE:
            self.head += bytes(chunk[: HEAD_SIZE - len(self.head)])
