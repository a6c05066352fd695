"""The file that grows beside the model until it is whole."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from slotkeeper.download.records import PartialRecord, sync_folder, write

HEAD_SIZE = 4
READ_SIZE = 1 << 20

Open = Callable[[Path, str], BinaryIO]
"""(path, mode) -> file: where a test puts a full disk."""


def open_file(path: Path, mode: str) -> BinaryIO:
    """Open a real file, buffered by a megabyte: chunks off the network are small."""
    return cast("BinaryIO", path.open(mode, buffering=READ_SIZE))


class PartialFile:
    """An unfinished download: its bytes on disk, and their size, head and digest in memory.

    A part left by an earlier run is taken up only if its record says that it is of the same
    source and of a version that If-Range can name; its digest is then computed anew.
    """

    def __init__(self, path: Path, source: str, opener: Open = open_file) -> None:
        self.path = path
        self.source = source
        self.validator: str | None = None
        """What If-Range sends; None where these bytes cannot be resumed."""
        self.total: int | None = None
        """Bytes of the whole file, where the server says so."""
        self.size = 0
        self.head = b""
        """The first 4 bytes, or as many as are here."""
        self._record = path.with_name(path.name + ".json")
        self._digest = hashlib.sha256()
        origin = PartialRecord.read(self._record)
        reusable = origin is not None and origin.source == source and path.exists()
        self._file = opener(path, "r+b" if reusable else "w+b")
        if reusable and origin is not None:
            self.validator = origin.validator
            self.total = origin.total
            while chunk := self._file.read(READ_SIZE):
                self._count(chunk)

    @property
    def sha256(self) -> str:
        """Digest in hex of what is here so far."""
        return self._digest.hexdigest()

    @property
    def complete(self) -> bool:
        """Whether every byte that the server promised is here."""
        return self.size == self.total

    def restart(self, *, validator: str | None, total: int | None) -> None:
        """Forget all bytes. Those to come can be resumed only with a validator and a total."""
        # The old record goes before the old bytes: a record never describes others' bytes.
        self._record.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self.head = b""
        self._digest = hashlib.sha256()
        self.validator = None
        self.total = total
        if validator is not None and total is not None:
            self.validator = validator
            write(self._record, PartialRecord(self.source, validator, total))

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)
        self._count(chunk)

    def place(self, path: Path) -> None:
        """Put the bytes on the disk, then rename the file to `path`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.replace(path)
        self._record.unlink(missing_ok=True)
        sync_folder(path.parent)

    def discard(self) -> None:
        """Remove the file and its record."""
        self._record.unlink(missing_ok=True)
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
        # Closing writes what is buffered. After a failed write it fails again, and what was
        # raised first says more; after place() nothing is buffered.
        with suppress(OSError):
            self._file.close()

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._digest.update(chunk)
        if len(self.head) < HEAD_SIZE:
            self.head = (self.head + chunk)[:HEAD_SIZE]
