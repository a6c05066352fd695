"""Versions of files that were received and rejected, which are not downloaded again.

The kubelet restarts the container after each failure, and each start would receive all bytes again
before it notices the same.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import source_id
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import RemoteFile
from slotkeeper.download.partial_file import PartialFile
from slotkeeper.download.records import RejectionRecord, write
from slotkeeper.error_text import describe

KEPT_SECONDS = 3600.0
"""After this a rejected version is downloaded once more: its bytes may have been changed on their
way, as by a faulty proxy."""

MAX_MESSAGE = 4096
"""Characters. Other pods may write to a volume that they share."""

_OF_CONTENT = frozenset(
    {
        Reason.MODEL_AMBIGUOUS,
        Reason.MODEL_CHECKSUM_MISMATCH,
        Reason.MODEL_DOWNLOAD_REJECTED,
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_NOT_GGUF,
        Reason.MODEL_SPLIT,
        Reason.MODEL_TYPE_MISMATCH,
    }
)
"""Reasons that depend on nothing but the content and what it had to be: not those of limits."""

log = logging.getLogger(__name__)


def require_not_rejected(file: RemoteFile, part: PartialFile | None = None) -> None:
    """Raise the DownloadError with which this version of a file was rejected before, if it was.

    Without `part`, the file's source names the content.
    """
    expected = _record(file, part)
    found = RejectionRecord.read(record_path(file.path))
    if expected is None or found is None or not _is_recent(record_path(file.path)):
        return
    if replace(found, reason="", message="") != expected or found.reason not in _OF_CONTENT:
        return
    if part:
        part.discard()
    log.info("the host still has the version that was rejected: it is not downloaded again soon")
    message = "".join(filter(str.isprintable, found.message[:MAX_MESSAGE]))
    raise DownloadError(Reason(found.reason), message)


@contextmanager
def remembered(file: RemoteFile, part: PartialFile | None = None) -> Iterator[None]:
    """Record a rejection of the content. Without a version of it, it is not recorded."""
    try:
        yield
    except DownloadError as error:
        record = _record(file, part)
        if record and error.reason in _OF_CONTENT:
            try:
                write(
                    record_path(file.path),
                    replace(record, reason=error.reason.value, message=error.message),
                )
            except OSError as failure:
                # The rejection is what the user has to know.
                log.warning("cannot record the rejection: %s", describe(failure))
        raise


def record_path(path: Path) -> Path:
    """Return the path of the record of a file."""
    return path.with_name(f"{path.name}.rejected.json")


def _is_recent(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime  # noqa: TID251 (files have this time)
    except OSError:
        return False
    # Below zero, the clock of the node was set back.
    return 0 <= age < KEPT_SECONDS


def _record(file: RemoteFile, part: PartialFile | None) -> RejectionRecord | None:
    """Return a record without reason and message; None if the host states no version."""
    required = source_id(repr((file.sha256, file.part, file.use)))
    if part is None:
        return RejectionRecord(file.source, "", 0, required, "", "")
    if part.validator is None or part.total is None:
        return None
    return RejectionRecord(part.source, part.validator, part.total, required, "", "")
