"""From a URL to a checked model file: reuse, lock, attempts, checks, rename."""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from slotkeeper.model.address import require_allowed, shown, source_id
from slotkeeper.model.checks import require_content
from slotkeeper.model.errors import FetchError, Reason
from slotkeeper.model.lock import only_one
from slotkeeper.model.part import Open, Part, open_file
from slotkeeper.model.progress import Progress
from slotkeeper.model.records import Receipt, write
from slotkeeper.model.transfer import transfer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """What is wanted, and where."""

    url: str
    path: Path
    sha256: str | None = None
    """64 lower-case hex digits, or None where any content is taken."""


@dataclass(frozen=True)
class Patience:
    """How often to try again after a transient error, and how long to wait before (seconds)."""

    tries: int = 6
    """In a row without a new byte; a try that got further starts the count again."""
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def wait(self, failures: int, chance: float) -> float:
        """Seconds before the next try: doubled each time, capped, and shortened by up to half.

        `chance` is from 0 to 1. Without it all replicas of a server would return at once.
        """
        doubled = self.first_wait * 2.0 ** (failures - 1)
        return min(self.longest_wait, doubled) * (1 - chance / 2)


@dataclass(frozen=True)
class Outside:
    """What a download needs of the world; tests bring their own."""

    client: httpx.Client
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    chance: Callable[[], float]
    """A number from 0 to 1."""
    opener: Open = open_file
    patience: Patience = field(default_factory=Patience)


def fetch(model: Model, outside: Outside) -> Receipt:
    """Put the model at `model.path`, or find that it is there already.

    Beside it lie `.json` (the receipt), `.lock` and, while unfinished, `.part` and `.part.json`.
    Raises FetchError; `model.path` then holds no file that was not checked.
    """
    require_allowed(model.url)
    with _storage_errors(model.path):
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(_beside(model.path, ".lock")):
            return _find(model) or _download(model, outside)


def _find(model: Model) -> Receipt | None:
    """Return the receipt of the file that is there, if it is what is wanted."""
    receipt = Receipt.read(_beside(model.path, ".json"))
    if receipt is None or not model.path.exists():
        return None
    if receipt.source == source_id(model.url) and _matches(model, receipt):
        log.info("already in place: %s, %d bytes", receipt.url, receipt.size)
        return receipt
    log.info("%s is there, but is not the model that is wanted", model.path)
    return None


def _matches(model: Model, receipt: Receipt) -> bool:
    if model.path.stat().st_size != receipt.size:
        return False
    if model.sha256 is None:
        return True
    with model.path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256


def _download(model: Model, outside: Outside) -> Receipt:
    # What lies at the path is not what is wanted. It goes first: there may be no room for two,
    # and a receipt must never lie beside a file that it does not describe.
    _beside(model.path, ".json").unlink(missing_ok=True)
    model.path.unlink(missing_ok=True)
    began = outside.clock()
    with Part(_beside(model.path, ".part"), source_id(model.url), outside.opener) as part:
        already = part.size
        _transfer_with_patience(model.url, part, outside)
        require_content(model.url, part, model.sha256)
        part.place(model.path)
    receipt = Receipt(shown(model.url), part.source, part.sha256, part.size)
    write(_beside(model.path, ".json"), receipt)
    seconds = max(outside.clock() - began, 1e-3)
    log.info(
        "in place: %s, %d bytes in %.1f s, %.1f MB/s, sha256 %s%s",
        *(receipt.url, receipt.size, seconds, (part.size - already) / seconds / 1e6),
        *(receipt.sha256, "" if model.sha256 else " (not checked: none was given)"),
    )
    return receipt


def _transfer_with_patience(url: str, part: Part, outside: Outside) -> None:
    progress, patience = Progress(outside.clock), outside.patience
    failures, furthest = 0, part.size
    while not part.whole:
        try:
            transfer(outside.client, url, part, progress)
        except FetchError as error:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if not error.reason.transient or failures >= patience.tries:
                raise
            wait = patience.wait(failures, outside.chance())
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
            raise FetchError(Reason.NO_SPACE, f"no room for {path}: {what}") from error
        raise FetchError(Reason.STORAGE, f"cannot write {path}: {what}") from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
