"""Files of pvc:// URLs, which are on a volume already: they are verified where they are."""

import hashlib
import stat
from pathlib import Path

from slotkeeper.api.model_url import claim_and_path
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.download.address import source_id
from slotkeeper.download.checks import MAGIC, kind_of, layout_of
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.records import FileRecord
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.gguf_split import Part
from slotkeeper.llamacpp.gguf_use import Use


def is_on_claim(file: File) -> bool:
    """Whether the file is on a claim, rather than on a host."""
    return claim_and_path(file.url) is not None


def verify(file: File, *, header_only: bool = False) -> FileRecord:
    """Verify the files of a model at their paths. Nothing is written.

    Returns the size of all of them, and the SHA-256 of the first, if one was expected: reading a
    large file takes minutes, so that with `header_only` it is not compared. Raises DownloadError.
    """
    count = part_count(file.url)
    expected = Part(count=count)
    size = 0
    for number in range(1, count + 1):
        url = part_name(file.url, number)
        path = _inside(url, Path(part_name(str(file.path), number)))
        try:
            expected = _require_content(url, path, expected, file.use)
            size += path.stat().st_size
            if not header_only:
                _require_sha256(url, path, file.sha256_of(number))
        except OSError as error:
            raise _unreadable(url, error) from error
    return FileRecord(file.url, source_id(file.url), file.sha256_of(1) or "", size, modified=0)


def _inside(url: str, path: Path) -> Path:
    """Return the path without symbolic links, which must not lead out of the claim.

    Otherwise a link to a mounted Secret would be read as a model, and quoted in an error.
    """
    found = claim_and_path(url)
    inside = found[1] if found else ""
    if not inside or not str(path).endswith(f"/{inside}"):
        raise DownloadError(Reason.MODEL_URL_NOT_ALLOWED, f"{url} is not at {path}")
    claim = Path(str(path).removesuffix(f"/{inside}"))
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to(claim.resolve()):
            raise DownloadError(
                Reason.MODEL_URL_NOT_ALLOWED, f"{url} is a link to a file outside of the claim"
            )
        # Opening a pipe would block.
        if not stat.S_ISREG(target.stat().st_mode):
            raise DownloadError(Reason.MODEL_NOT_GGUF, f"{url} is not a regular file")
    except (FileNotFoundError, NotADirectoryError):
        raise DownloadError(
            Reason.MODEL_NOT_FOUND, f"{url} does not exist: the claim has no file {inside}"
        ) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise _unreadable(url, error) from error
    return target


def _require_content(url: str, path: Path, expected: Part, use: Use) -> Part:
    """Return what the next file is expected to be."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head != MAGIC:
        raise DownloadError(Reason.MODEL_NOT_GGUF, f"{url} is not a GGUF file: {kind_of(head)}")
    layout = layout_of(path)
    size = path.stat().st_size
    if mismatch := expected.mismatch(layout):
        raise DownloadError(Reason.MODEL_SPLIT, f"{url} is {mismatch}")
    if mismatch := use.mismatch(layout):
        raise DownloadError(Reason.MODEL_TYPE_MISMATCH, f"{url} is {mismatch}")
    if size < layout.size:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"{url} has {size} bytes, but according to its GGUF header at least {layout.size}: it "
            "was not copied completely",
        )
    return expected.next(layout)


def _require_sha256(url: str, path: Path, expected: str | None) -> None:
    if expected is None:
        return
    with path.open("rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH, f"{url} has the SHA-256 {digest}, expected {expected}"
        )


def _unreadable(url: str, error: Exception) -> DownloadError:
    hint = ": it must be readable by the user 65532 or its group, or by all users"
    return DownloadError(
        Reason.STORAGE_ERROR,
        f"cannot read {url}: {describe(error)}{hint if isinstance(error, PermissionError) else ''}",
    )
