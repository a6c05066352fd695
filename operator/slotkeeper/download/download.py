"""From URLs to verified files: reuse, lock, retries, verification, rename."""

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.backoff import Backoff
from slotkeeper.download.address import redact, require_allowed, source_id
from slotkeeper.download.checks import has_all_tensors, require_content
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.lock import file_lock
from slotkeeper.download.partial_file import Open, PartialFile, open_file
from slotkeeper.download.progress import Progress
from slotkeeper.download.records import FileRecord, write
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.transfer import transfer
from slotkeeper.error_text import describe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file to download, and its target."""

    url: str
    path: Path
    sha256: str | None = None
    """64 lower-case hex digits; None to accept any content."""
    role: str = "model"
    """Field of the spec that names the file."""


@dataclass(frozen=True)
class RetryPolicy:
    """Number and delays (in seconds) of the retries after transient errors."""

    tries: int = 6
    """Consecutive tries without a new byte. A try with new bytes resets the count."""
    backoff: Backoff = Backoff(1.0, 30.0)  # noqa: RUF009 (frozen)
    max_retry_after: float = 600.0
    """Longest Retry-After of a model host that is waited for. After a longer one the container
    ends with the reason, and is restarted with the kubelet's back-off."""


@dataclass(frozen=True)
class Environment:
    """Effects of a download on the outside, which tests replace."""

    client: httpx.Client
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    chance: Callable[[], float]
    """Returns a random number from 0 to 1."""
    opener: Open = open_file
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limits: StorageLimits = field(default_factory=StorageLimits)
    always_verify: bool = False
    """Whether existing files are read and verified even if they seem unchanged."""


def download_all(files: Sequence[File], environment: Environment) -> list[FileRecord]:
    """Put each file in place. Raises DownloadError, whose message names the file's field."""
    return [_download_as(file, environment) for file in files]


def _download_as(file: File, environment: Environment) -> FileRecord:
    try:
        return download(file, environment)
    except DownloadError as error:
        if file.role == File.role:
            raise
        raise DownloadError(error.reason, f"{file.role}: {error.message}") from error


def download(file: File, environment: Environment) -> FileRecord:
    """Put one file at its path, unless it is there already.

    Next to it are `.json` (its record), `.lock` and, until it is complete, `.part` and
    `.part.json`. Raises DownloadError; the path then contains no unverified file.
    """
    require_allowed(file.url)
    with _storage_errors(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(_sibling(file.path, ".lock")):
            existing = _find(file, always_verify=environment.always_verify)
            return existing or _download_anew(file, environment)


def _find(file: File, *, always_verify: bool) -> FileRecord | None:
    """Return the record of the existing file if it is the requested one."""
    record = FileRecord.read(_sibling(file.path, ".json"))
    if record is None or not file.path.exists():
        return None
    verified = _verify(file, record, always=always_verify)
    if verified is None:
        log.info("existing file is not the requested one: %s", file.path)
        return None
    if verified != record:
        write(_sibling(file.path, ".json"), verified)
    log.info("already in place: %s, %d bytes", verified.url, verified.size)
    return verified


def _verify(file: File, record: FileRecord, *, always: bool) -> FileRecord | None:
    """Return the record, updated, if it describes the existing file and that is the requested one.

    If a SHA-256 is requested, only the content counts: the same file may come from another URL.
    Otherwise it is the content that was downloaded from this URL. Unless `always`, it is hashed
    again only if it has been written since, because that takes minutes for 40 GB, and replicas that
    share a volume would do it one after the other.
    """
    stat = file.path.stat()
    if stat.st_size != record.size or not has_all_tensors(file.path):
        return None
    if file.sha256 is None and record.source != source_id(file.url):
        return None
    expected = file.sha256 or record.sha256
    if always or (record.modified, record.changed) != _times(stat):
        with file.path.open("rb", buffering=0) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        modified, changed = _times(stat)
        record = replace(record, sha256=digest, modified=modified, changed=changed)
    return record if record.sha256 == expected else None


def _times(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_mtime_ns, stat.st_ctime_ns


def _download_anew(file: File, environment: Environment) -> FileRecord:
    # Delete the obsolete file first: there may be no space for both, and a record must never be
    # next to a file that it does not describe.
    _sibling(file.path, ".json").unlink(missing_ok=True)
    file.path.unlink(missing_ok=True)
    start = environment.clock()
    with PartialFile(_sibling(file.path, ".part"), source_id(file.url), environment.opener) as part:
        resumed = part.size
        _transfer_with_retries(file, part, environment)
        part.place(file.path)
    times = _times(file.path.stat())
    record = FileRecord(redact(file.url), part.source, part.sha256, part.size, *times)
    write(_sibling(file.path, ".json"), record)
    seconds = max(environment.clock() - start, 1e-3)
    log.info(
        "in place: %s, %d bytes in %.1f s, %.1f MB/s, SHA-256 %s%s",
        *(record.url, record.size, seconds, (part.size - resumed) / seconds / 1e6),
        *(record.sha256, "" if file.sha256 else " (not verified: no sha256 is set)"),
    )
    return record


def _transfer_with_retries(file: File, part: PartialFile, environment: Environment) -> None:
    """Complete `part` with verified content."""
    progress = Progress(environment.clock)
    retry = environment.retry
    failures = 0
    furthest = part.size
    while True:
        try:
            if not part.complete:
                transfer(environment.client, file.url, part, progress, environment.limits)
            require_content(file.url, part, file.sha256)
        except DownloadError as error:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            postponed = error.retry_after > retry.max_retry_after
            if not error.transient or failures >= retry.tries or postponed:
                raise
            # The jitter is added to Retry-After, not to have all replicas try at the same time.
            delay = retry.backoff.jittered(failures, environment.chance()) + error.retry_after
            log.warning("%s; retrying in %.1f s", error.message, delay)
            environment.sleep(delay)
        else:
            return


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Convert errors of the volume into DownloadError."""
    try:
        yield
    except OSError as error:
        details = describe(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DownloadError(
                Reason.INSUFFICIENT_STORAGE, f"insufficient storage for {path}: {details}"
            ) from error
        raise DownloadError(Reason.STORAGE_ERROR, f"cannot write {path}: {details}") from error


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
