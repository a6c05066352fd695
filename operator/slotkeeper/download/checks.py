"""Verification of downloaded content. A partial file that fails is deleted: resuming is useless."""

from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import PartialFile
from slotkeeper.llamacpp.gguf import HEAD_BYTES
from slotkeeper.llamacpp.gguf_layout import read_layout

MAGIC = b"GGUF"


def require_gguf_so_far(url: str, part: PartialFile) -> None:
    """Reject a web page or another format at its first bytes, and an incomplete or split model at
    its header. Raises DownloadError."""
    if not MAGIC.startswith(part.head):
        raise _not_gguf(url, part)
    if not part.header_checked and part.size >= HEAD_BYTES:
        part.header_checked = True
        _require_layout(url, part, part.total)


def require_content(url: str, part: PartialFile, sha256: str | None) -> None:
    """Verify the format and the checksum of a complete file. Raises DownloadError."""
    if part.head != MAGIC:
        raise _not_gguf(url, part)
    _require_layout(url, part, part.size)
    if sha256 is not None and part.sha256 != sha256:
        part.discard()
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH,
            f"GET {redact(url)} returned {part.size} bytes with SHA-256 {part.sha256}, expected "
            f"{sha256}",
        )


def has_all_tensors(path: Path) -> bool:
    """Whether a file is as long as its header requires. Raises OSError."""
    with path.open("rb") as file:
        return read_layout(file.read(HEAD_BYTES)).size <= path.stat().st_size


def _require_layout(url: str, part: PartialFile, size: int | None) -> None:
    layout = read_layout(part.read_head(HEAD_BYTES))
    if layout.parts > 1:
        part.discard()
        raise DownloadError(
            Reason.MODEL_SPLIT,
            f"GET {redact(url)} returned one of {layout.parts} files of a split model, which is "
            "not supported: merge them with `llama-gguf-split --merge`",
        )
    if size is not None and size < layout.size:
        part.restart(validator=None, total=None)
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"GET {redact(url)} returned a file of {size} bytes, but according to its GGUF header "
            f"it has at least {layout.size}: the host has only a part of it",
        )


def _not_gguf(url: str, part: PartialFile) -> DownloadError:
    part.discard()
    return DownloadError(
        Reason.MODEL_NOT_GGUF,
        f"GET {redact(url)} returned a file that is not GGUF: it begins with {part.head!r}",
    )
