"""From URLs to verified files: reuse, lock, retries, verification, rename."""

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import httpx

from slotkeeper.api.model_url import HUB_ENDPOINT, bucket_and_key, hub_address, oci_reference
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.backoff import Backoff
from slotkeeper.download.address import redact
from slotkeeper.download.checks import fits_header, layout_of, require_content
from slotkeeper.download.connection_speed import FAST_BYTES_PER_SECOND
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File, RemoteFile
from slotkeeper.download.layers import Deleted, LayerFile, Search, not_found
from slotkeeper.download.lock import file_lock
from slotkeeper.download.minimum_speed import MINIMUM_BYTES, WINDOW_SECONDS
from slotkeeper.download.partial_file import Open, PartialFile, open_file
from slotkeeper.download.progress import Progress
from slotkeeper.download.ranges import Connections
from slotkeeper.download.records import FileRecord, PartialRecord, write
from slotkeeper.download.rejections import record_path, remembered, require_not_rejected
from slotkeeper.download.sources import claim, http, hub, oci, s3
from slotkeeper.download.sources.registry import Registries
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.token import Token
from slotkeeper.download.tracker import Tracker
from slotkeeper.download.transfer import transfer
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.gguf_split import Part

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """Number and delays (in seconds) of the retries after transient errors."""

    tries: int = 6
    """Consecutive tries without progress: a new byte, or 64 KiB after more than a minute."""
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
    fast: float | None = FAST_BYTES_PER_SECOND
    """As in Connections."""
    hub_endpoint: str = HUB_ENDPOINT
    token: Token | None = None
    """For registries, which the client does not send it to."""
    plain_http: bool = False
    """Whether registries of the cluster are accessed by http://."""
    store: s3.Store = field(default_factory=s3.Store)
    """Of s3:// URLs."""
    always_verify: bool = False
    """Whether existing files are read and verified even if they seem unchanged."""
    tracker: Tracker = field(default_factory=Tracker)
    """The progress of all files together."""
    mark_used: Callable[[int], None] | None = None
    """In the cache of a node: marks a model as used, by the descriptor of its lock."""


_Step = Callable[[File, Environment], FileRecord]
_Put = Callable[[RemoteFile, Environment], FileRecord]


def download_all(files: Sequence[File], environment: Environment) -> list[FileRecord]:
    """Put each file in place. Raises DownloadError, whose message names the file's field.

    Before the weights of any are downloaded, all are checked by their headers.
    """
    check_all(files, environment)
    return _in_turn(files, environment, download)


def check_all(files: Sequence[File], environment: Environment) -> None:
    """Check that all files can be downloaded, fit their fields, and fit on the volume together.

    The bytes that were received for this are kept, in partial files. Raises DownloadError.
    """
    limits = environment.limits
    several = len(files) > 1 or any(part_count(file.url) > 1 for file in files)
    if not several and limits.of_one_file:
        return  # The checks at its header are the same.
    records = _in_turn(files, environment, _check)
    downloaded = [
        (file, record)
        for file, record in zip(files, records, strict=True)
        if not claim.is_on_claim(file)
    ]
    if downloaded:
        size = sum(record.size for _, record in downloaded)
        first = downloaded[0][0].path
        with _room_lock(first, environment):
            on_volume = sum(_bytes_on_volume(file) for file, _ in downloaded)
            limits.require_all(_sibling(first, ".part"), size=size, missing=size - on_volume)


@contextmanager
def _room_lock(path: Path, environment: Environment) -> Iterator[None]:
    """In the cache of a node, lock a file: its agent ignores a request for room without a lock,
    since a killed download leaves one."""
    if environment.mark_used is None:
        yield
        return
    with (
        _storage_errors(path),
        file_lock(
            _sibling(path, ".lock"),
            lambda: environment.tracker.enter("Waiting"),
            environment.mark_used,
        ),
    ):
        yield


def _bytes_on_volume(file: File) -> int:
    """Return how much of a model is on the volume, complete or not."""
    count = part_count(file.url)
    paths = [file.path.with_name(part_name(file.path.name, n)) for n in range(1, count + 1)]
    return sum(present.stat().st_size for path in paths if (present := _present(path)))


def _in_turn(files: Sequence[File], environment: Environment, step: _Step) -> list[FileRecord]:
    """Do a step for each file, with the header of the model, which is the first."""
    records: list[FileRecord] = []
    model = None
    for file in files:
        records.append(_named(replace(file, model=model), environment, step))
        if file.role == File.role and (present := _present(file.path)):
            model = layout_of(present)
    return records


def _present(path: Path) -> Path | None:
    """Return the path of a file, or of what was received of it; None if there is neither."""
    part = _sibling(path, ".part")
    return path if path.exists() else part if part.exists() else None


def _named(file: File, environment: Environment, step: _Step) -> FileRecord:
    try:
        return step(file, environment)
    except DownloadError as error:
        if file.role == File.role:
            raise
        raise error.with_message(f"{file.role}: {error.message}") from error


def download(file: File, environment: Environment) -> FileRecord:
    """Put one file, or all files of a split model, at its path, unless they are there already.

    Those of a claim (pvc://) are there, and are only verified.

    Next to each are `.json` (its record) and, until it is complete, `.part` and `.part.json`, or
    after a rejection `.rejected.json`; next to the first is `.lock`. Returns the record of the
    first, with the size of all. Raises DownloadError; the path then contains no unverified file.
    """
    if claim.is_on_claim(file):
        environment.tracker.enter("Verifying")
        return claim.verify(file)
    return _locked(file, environment, _find_or_download, _find_read_only)


def download_headers(file: File, environment: Environment) -> list[Path]:
    """Receive the header of a file, or of each file of a split model; return the files that begin
    with them. Raises DownloadError."""
    _check(file, environment)
    count = part_count(file.url)
    paths = [file.path.with_name(part_name(file.path.name, n)) for n in range(1, count + 1)]
    return [present for path in paths if (present := _present(path))]


def _check(file: File, environment: Environment) -> FileRecord:
    """Check one file, or all files of a split model, by their headers. Raises DownloadError.

    Returns the record of the first, with the announced size of all.
    """
    if claim.is_on_claim(file):
        return claim.verify(file, header_only=True)
    return _locked(file, environment, _find_or_check, lambda _: _find_or_check)


def _locked(
    file: File, environment: Environment, put: _Put, read_only: Callable[[OSError], _Put]
) -> FileRecord:
    """Put a file in place while no other process does; with `read_only`, if that is impossible
    because of an error of the volume."""
    tracker = environment.tracker
    with _storage_errors(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = _sibling(file.path, ".lock")
            with file_lock(lock, lambda: tracker.enter("Waiting"), environment.mark_used):
                return _put_all(file, environment, put)
        except OSError as error:
            # A file that is not marked as used may be removed from a node's cache.
            if error.errno not in _CANNOT_WRITE or environment.mark_used:
                raise
            files = _resolve(file, environment)
            record = _put_in_place(files, environment, read_only(error))
            log.info("the volume cannot be written, and has the files: %s", describe(error))
            return record


MAX_NAME = 255
"""Characters of a file's name in the progress."""

_CANNOT_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM}


def _put_all(file: File, environment: Environment, put: _Put) -> FileRecord:
    try:
        return _put_in_place(_resolve(file, environment), environment, put)
    except DownloadError as error:
        if not error.transient:
            # The next start may find another commit, which has the file.
            for record in (hub.RECORD, oci.RECORD):
                _sibling(file.path, record).unlink(missing_ok=True)
        raise


def _resolve(file: File, environment: Environment) -> Sequence[RemoteFile]:
    return [replace(each, use=file.use) for each in _resolve_url(file, environment)]


def _resolve_url(file: File, environment: Environment) -> Sequence[RemoteFile]:
    if bucket_and_key(file.url):
        return s3.resolve(file, environment.store)
    if reference := oci_reference(file.url):
        return _retrying(
            lambda: oci.resolve(
                file,
                reference,
                Registries(environment.client, environment.token, environment.plain_http),
                _sibling(file.path, oci.RECORD),
            ),
            lambda: 0,
            environment,
        )
    address = hub_address(file.url)
    if address is None:
        return http.resolve(file)
    record = _sibling(file.path, hub.RECORD)
    source = hub.Hub(environment.client, environment.hub_endpoint)
    return _retrying(lambda: hub.resolve(file, address, source, record), lambda: 0, environment)


def _put_in_place(files: Sequence[RemoteFile], environment: Environment, put: _Put) -> FileRecord:
    """Put all files of one model in place, each as its predecessors require."""
    records: list[FileRecord] = []
    expected = Part(count=len(files))
    size = 0
    for number, each in enumerate(files, 1):
        file = replace(each, part=expected)
        # What a model host can write is limited for all files together.
        limited = replace(environment, limits=replace(environment.limits, used_bytes=size))
        environment.tracker.begin(file.path, _name(file))
        try:
            records.append(put(file, limited))
        except DownloadError as error:
            if len(files) == 1:
                raise
            message = f"file {number} of {len(files)}: {error.message}"
            raise error.with_message(message) from error
        if present := _present(file.path):
            expected = expected.next(layout_of(present))
        size += records[-1].size
    return replace(records[0], size=size)


def _find_or_download(file: RemoteFile, environment: Environment) -> FileRecord:
    return _find(file, environment) or _download_anew(file, environment)


def _find_or_check(file: RemoteFile, environment: Environment) -> FileRecord:
    """Return a record with the size of a file, whose header has been checked."""
    record = FileRecord.read(_sibling(file.path, ".json"))
    if record and file.path.exists() and fits_header(file.path, file.part):
        if mismatch := file.use.mismatch(layout_of(file.path)):
            raise DownloadError(Reason.MODEL_TYPE_MISMATCH, f"{redact(file.url)} is {mismatch}")
        environment.tracker.expect(file.path, record.size)
        return record
    if file.image:
        # It is somewhere in layers, which would have to be read up to there twice.
        return FileRecord(redact(file.url), file.source, "", 0, modified=0)
    path = _sibling(file.path, ".part")
    resumed = PartialRecord.read(_sibling(path, ".json"))
    if resumed and resumed.source == file.source and path.exists():
        layout = layout_of(path)
        # It was checked when it was received. To open the partial file takes long: it is hashed.
        if layout.size and not layout.truncated and not file.use.mismatch(layout):
            environment.tracker.expect(file.path, resumed.total)
            return FileRecord(redact(file.url), file.source, "", resumed.total, modified=0)
    with PartialFile(path, file.source, environment.opener) as part:
        _transfer_with_retries(replace(file, header_only=True), part, environment)
        size = part.size if part.total is None else part.total
    return FileRecord(redact(file.url), file.source, "", size, modified=0)


def _find_read_only(error: OSError) -> _Put:
    """Return what raises this error for a file that is not in place."""

    def find(file: RemoteFile, environment: Environment) -> FileRecord:
        record = _find(file, environment, writable=False)
        if record is None:
            raise error
        return record

    return find


def _find(
    file: RemoteFile, environment: Environment, *, writable: bool = True
) -> FileRecord | None:
    """Return the record of the existing file if it is the requested one."""
    record = FileRecord.read(_sibling(file.path, ".json"))
    if record is None or not file.path.exists():
        return None
    environment.tracker.enter("Verifying")
    verified = _verify(file, record, always=environment.always_verify)
    if verified is None:
        log.info("existing file is not the requested one: %s", file.path)
        return None
    # The same content may have another name, and a record of an earlier version has none.
    verified = replace(verified, name=file.name or verified.name)
    if verified != record and writable:
        write(_sibling(file.path, ".json"), verified)
    environment.tracker.completed(file.path, verified.size)
    log.info("already in place: %s, %d bytes", verified.url, verified.size)
    return verified


def _verify(file: RemoteFile, record: FileRecord, *, always: bool) -> FileRecord | None:
    """Return the record, updated, if it describes the existing file and that is the requested one.

    If a SHA-256 is requested, only the content counts: the same file may come from another URL.
    Otherwise it is the content that was downloaded from this URL. Unless `always`, it is hashed
    again only if it has been written since, because that takes minutes for 40 GB, and replicas that
    share a volume would do it one after the other.
    """
    stat = file.path.stat()
    if stat.st_size != record.size or not fits_header(file.path, file.part):
        return None
    if file.sha256 is None and record.source != file.source:
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


def _download_anew(file: RemoteFile, environment: Environment) -> FileRecord:
    # Delete the obsolete file first: there may be no space for both, and a record must never be
    # next to a file that it does not describe.
    _sibling(file.path, ".json").unlink(missing_ok=True)
    file.path.unlink(missing_ok=True)
    start = environment.clock()
    # The bytes of an earlier container are read again.
    environment.tracker.enter("Verifying")
    for each, part in _partial_files(file, environment):
        with part:
            resumed = part.size
            environment.tracker.enter("Checking")
            _transfer_with_retries(each, part, environment)
            if part.has_content:
                part.place(file.path)
                break
    times = _times(file.path.stat())
    # A file in an image is known by its path only when it has been found.
    name = (part.name if isinstance(part, LayerFile) else None) or file.name
    record = FileRecord(
        redact(each.url), file.source, part.sha256, part.content_size, *times, name=name
    )
    write(_sibling(file.path, ".json"), record)
    record_path(file.path).unlink(missing_ok=True)
    environment.tracker.completed(file.path, record.size)
    seconds = max(environment.clock() - start, 1e-3)
    log.info(
        "in place: %s, %d bytes in %.1f s, %.1f MB/s, SHA-256 %s%s",
        *(record.url, record.size, seconds, (part.size - resumed) / seconds / 1e6),
        *(record.sha256, "" if file.sha256 else " (not verified: no sha256 is set)"),
    )
    return record


def _partial_files(
    file: RemoteFile, environment: Environment
) -> Iterator[tuple[RemoteFile, PartialFile]]:
    """Yield what to transfer, until the file has been found in it. Raises DownloadError."""
    path = _sibling(file.path, ".part")
    if file.image is None:
        yield file, PartialFile(path, file.source, environment.opener)
        return
    require_not_rejected(file)
    search = Search(file.image, Deleted(), environment.limits)
    for layer in file.image.layers:
        part = LayerFile(path, layer, search, environment.opener)
        yield replace(file, url=layer.url), part
    with remembered(file):
        raise not_found(file.image)


def _transfer_with_retries(file: RemoteFile, part: PartialFile, environment: Environment) -> None:
    """Complete `part` with verified content, or only until its header is accepted."""
    progress = Progress(environment.clock, file.path, environment.tracker, header=file.header_only)
    connections = Connections(fast=environment.fast)

    def attempt() -> None:
        if not part.complete:
            transfer(environment.client, file, part, progress, environment.limits, connections)
        with remembered(file, part):
            part.finish()
            if part.has_content and (part.complete or not file.header_only):
                environment.tracker.enter("Verifying")
                require_content(file, part)

    _retrying(attempt, lambda: part.size, environment)


def _retrying(
    attempt: Callable[[], Result], size: Callable[[], int], environment: Environment
) -> Result:
    """Return the result of the first attempt without a transient error. `size` is what attempts
    have achieved: the number of tries is counted from the last increase, if that is not too little
    for the time since the first one."""
    retry = environment.retry
    failures = 0
    furthest = counted = size()
    since = environment.clock()
    while True:
        try:
            return attempt()
        except DownloadError as error:
            now = environment.clock()
            if size() - counted >= MINIMUM_BYTES:
                counted, since = size(), now
            progress = size() > furthest and now - since < WINDOW_SECONDS
            failures = 1 if progress and not error.stalled else failures + 1
            furthest = max(furthest, size())
            postponed = error.retry_after > retry.max_retry_after
            if not error.transient or failures >= retry.tries or postponed:
                raise
            # The jitter is added to Retry-After, not to have all replicas try at the same time.
            delay = retry.backoff.jittered(failures, environment.chance()) + error.retry_after
            log.warning("%s; retrying in %.1f s", error.message, delay)
            environment.sleep(delay)


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


def _name(file: RemoteFile) -> str:
    return redact(file.url).rpartition("/")[2][:MAX_NAME]


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
