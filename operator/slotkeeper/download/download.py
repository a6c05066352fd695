"""From URLs to checked files: reuse, lock, attempts, checks, rename."""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.backoff import Backoff
from slotkeeper.download.address import redact, require_allowed, source_id
from slotkeeper.download.checks import require_content
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.lock import file_lock
from slotkeeper.download.partial_file import Open, PartialFile, open_file
from slotkeeper.download.progress import Progress
from slotkeeper.download.records import FileRecord, write
from slotkeeper.download.transfer import transfer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """What is wanted, and where."""

    url: str
    path: Path
    sha256: str | None = None
    """64 lower-case hex digits, or None where any content is taken."""
    role: str = "model"
    """The field that names it."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try again after a transient error, and how long to wait before (seconds)."""

    tries: int = 6
    """In a row without a new byte; a try that got further starts the count again."""
    backoff: Backoff = Backoff(1.0, 30.0)  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Environment:
    """What a download needs of the world; tests bring their own."""

    client: httpx.Client
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    chance: Callable[[], float]
    """A number from 0 to 1."""
    opener: Open = open_file
    patience: RetryPolicy = field(default_factory=RetryPolicy)


def download_all(files: Sequence[File], outside: Environment) -> list[FileRecord]:
    """Put each file in place. Raises FetchError, which then says of which field it is."""
    return [_download_as(file, outside) for file in files]


def _download_as(file: File, outside: Environment) -> FileRecord:
    try:
        return download(file, outside)
    except DownloadError as error:
        if file.role == File.role:
            raise
        raise DownloadError(error.reason, f"{file.role}: {error.message}") from error


def download(file: File, outside: Environment) -> FileRecord:
    """Put one file at its path, or find that it is there already.

    Beside it lie `.json` (the receipt), `.lock` and, while unfinished, `.part` and `.part.json`.
    Raises FetchError; the path then holds no file that was not checked.
    """
    require_allowed(file.url)
    with _storage_errors(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(_beside(file.path, ".lock")):
            return _find(file) or _download_anew(file, outside)


def _find(file: File) -> FileRecord | None:
    """Return the receipt of the file that is there, if it is what is wanted."""
    receipt = FileRecord.read(_beside(file.path, ".json"))
    if receipt is None or not file.path.exists():
        return None
    found = _checked(file, receipt)
    if found is None:
        log.info("%s is there, but is not what is wanted", file.path)
        return None
    if found != receipt:
        write(_beside(file.path, ".json"), found)
    log.info("already in place: %s, %d bytes", found.url, found.size)
    return found


def _checked(file: File, receipt: FileRecord) -> FileRecord | None:
    """The receipt, if it is of what lies there and that is what is wanted.

    Where a sha256 is wanted, nothing but the content counts: the same file may have come from
    another URL. It is read again only if it was written since it was checked: of 40 GB, that is
    minutes, and replicas that share a volume would read them one after the other.
    """
    there = file.path.stat()
    if there.st_size != receipt.size:
        return None
    if file.sha256 is None:
        return receipt if receipt.source == source_id(file.url) else None
    if receipt.modified != there.st_mtime_ns:
        with file.path.open("rb", buffering=0) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        receipt = replace(receipt, sha256=digest, modified=there.st_mtime_ns)
    return receipt if receipt.sha256 == file.sha256 else None


def _download_anew(file: File, outside: Environment) -> FileRecord:
    # What lies at the path is not what is wanted. It goes first: there may be no room for two,
    # and a receipt must never lie beside a file that it does not describe.
    _beside(file.path, ".json").unlink(missing_ok=True)
    file.path.unlink(missing_ok=True)
    began = outside.clock()
    with PartialFile(_beside(file.path, ".part"), source_id(file.url), outside.opener) as part:
        already = part.size
        _transfer_with_retries(file.url, part, outside)
        require_content(file.url, part, file.sha256)
        part.place(file.path)
    modified = file.path.stat().st_mtime_ns
    receipt = FileRecord(redact(file.url), part.source, part.sha256, part.size, modified)
    write(_beside(file.path, ".json"), receipt)
    seconds = max(outside.clock() - began, 1e-3)
    log.info(
        "in place: %s, %d bytes in %.1f s, %.1f MB/s, sha256 %s%s",
        *(receipt.url, receipt.size, seconds, (part.size - already) / seconds / 1e6),
        *(receipt.sha256, "" if file.sha256 else " (not checked: none was given)"),
    )
    return receipt


def _transfer_with_retries(url: str, part: PartialFile, outside: Environment) -> None:
    progress = Progress(outside.clock)
    patience = outside.patience
    failures = 0
    furthest = part.size
    while not part.complete:
        try:
            transfer(outside.client, url, part, progress)
        except DownloadError as error:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if not error.transient or failures >= patience.tries:
                raise
            wait = patience.backoff.jittered(failures, outside.chance())
            log.warning("%s; next try in %.1f s", error.message, wait)
            outside.sleep(wait)
        else:
            return


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn what the volume refuses into a FetchError."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DownloadError(
                Reason.INSUFFICIENT_STORAGE, f"no room for {path}: {what}"
            ) from error
        raise DownloadError(Reason.STORAGE_ERROR, f"cannot write {path}: {what}") from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
