"""Limits of the storage that one file may take."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.quantity import of_bytes, unequal
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import PartialFile

MAX_FILE_BYTES = 100 * 1024**3


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system of a folder."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class StorageLimits:
    """Limits of one file, so that a model host cannot fill the disk of a node."""

    max_bytes: int = MAX_FILE_BYTES
    used_bytes: int = 0
    """Size of the files of the same model that are in place: the maximum is for all together."""
    free_bytes: Callable[[Path], int] = free_bytes
    limit_name: str = "model.download.maxFileSize"
    """What sets the maximum."""
    make_room: Callable[[Path, int], None] = lambda _part, _missing: None
    """Called with a partial file and its missing bytes if these are not free."""
    shared: bool = False
    """Whether other downloads may take the free bytes meanwhile, and must leave some to others."""
    all_files_bytes: int | None = None
    """Maximum size of all files of a model together, which must not be downloaded with more."""
    all_files_limit_name: str = "model.cache.sizeLimit"
    """What sets it."""

    @property
    def of_one_file(self) -> bool:
        """Whether a single file within the maximum of one is within that of all files."""
        return self.all_files_bytes is None or self.max_bytes <= self.all_files_bytes

    def require_announced(self, url: str, part: PartialFile) -> None:
        """Check the announced size of a file, before its bytes. Raises DownloadError."""
        total = part.content_total
        if total is None:
            return
        if self.used_bytes + total > self.max_bytes:
            stated, limit = unequal(total, self.max_bytes)
            raise self._too_large(url, part, f"announces {stated}, more", limit)
        self._require_free(redact(url), part.path, total - part.content_size)

    def require_room(self, url: str, part: PartialFile, more: int) -> None:
        """Check the size that the file has after `more` bytes. Raises DownloadError."""
        if self.used_bytes + part.content_after(more) > self.max_bytes:
            raise self._too_large(url, part, "returns more", of_bytes(self.max_bytes))
        if self.shared and self.free_bytes(part.path.parent) == 0:
            total = part.content_total
            missing = more if total is None else total - part.content_size
            self._require_free(redact(url), part.path, missing)

    def require_all(self, part: Path, *, size: int, missing: int) -> None:
        """Check all files of a pod together: their size, and how much is to be downloaded; `part`
        is one of the partial files. Raises DownloadError."""
        if self.all_files_bytes is not None and size > self.all_files_bytes:
            stated, limit = unequal(size, self.all_files_bytes)
            raise DownloadError(
                Reason.INSUFFICIENT_STORAGE,
                f"all files together have {stated}, more than the {limit} of "
                f"{self.all_files_limit_name}",
            )
        self._require_free("all files together", part, missing)

    def _require_free(self, what: str, part: Path, missing: int) -> None:
        free = self.free_bytes(part.parent)
        if missing > free:
            self.make_room(part, missing)
            free = self.free_bytes(part.parent)
        if missing > free:
            needed, present = unequal(missing, free)
            raise DownloadError(
                Reason.INSUFFICIENT_STORAGE,
                f"insufficient storage for {what}: {needed} more are needed, {present} are free",
            )

    def _too_large(self, url: str, part: PartialFile, what: str, limit: str) -> DownloadError:
        part.discard()
        beside = f", after {of_bytes(self.used_bytes)} of other files," if self.used_bytes else ""
        return DownloadError(
            Reason.MODEL_TOO_LARGE,
            f"GET {redact(url)} {what}{beside} than the {limit} of {self.limit_name}",
        )
