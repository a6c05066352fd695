"""Verification of downloaded content. A partial file that fails is deleted: resuming is useless."""

import sys
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import RemoteFile
from slotkeeper.download.partial_file import PartialFile
from slotkeeper.llamacpp.gguf import HEAD_BYTES
from slotkeeper.llamacpp.gguf_layout import Layout, read_layout
from slotkeeper.llamacpp.gguf_split import Part

MAGIC = b"GGUF"


def require_gguf_so_far(file: RemoteFile, part: PartialFile) -> None:
    """Reject a web page or another format at its first bytes, and an incomplete file or one of
    another model at its header. Raises DownloadError."""
    if not MAGIC.startswith(part.head):
        raise _not_gguf(file, part)
    if part.content_size < part.header_check_size:
        return
    with part.open_head() as head:
        layout = read_layout(head)
    if layout.truncated and part.content_size < HEAD_BYTES:
        part.header_check_size = min(4 * part.content_size, HEAD_BYTES)
        return
    part.header_check_size = sys.maxsize
    _require_layout(file, part, layout, part.content_total)


def require_content(file: RemoteFile, part: PartialFile) -> None:
    """Verify the format and the checksum of a complete file. Raises DownloadError."""
    if part.head != MAGIC:
        raise _not_gguf(file, part)
    with part.open_head() as head:
        layout = read_layout(head)
    _require_layout(file, part, layout, part.content_size)
    if file.sha256 is not None and part.sha256 != file.sha256:
        part.discard()
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH,
            f"GET {redact(file.url)} returned {part.content_size} bytes with SHA-256 "
            f"{part.sha256}, expected {file.sha256}",
        )


def layout_of(path: Path) -> Layout:
    """Return what the header of a file requires of it. Raises OSError."""
    with path.open("rb") as file:
        return read_layout(file)


def fits_header(path: Path, expected: Part) -> bool:
    """Whether a file is as long as its header requires, and is the expected one of its model.
    Raises OSError."""
    layout = layout_of(path)
    return layout.size <= path.stat().st_size and expected.mismatch(layout) is None


def _require_layout(file: RemoteFile, part: PartialFile, layout: Layout, size: int | None) -> None:
    for reason, mismatch in (
        (Reason.MODEL_SPLIT, file.part.mismatch(layout)),
        (Reason.MODEL_TYPE_MISMATCH, file.use.mismatch(layout)),
    ):
        if mismatch:
            part.discard()
            raise DownloadError(
                reason, f"GET {redact(file.url)} returned a file that is {mismatch}"
            )
    if size is not None and size < layout.size:
        part.restart(validator=None, total=None)
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_INCOMPLETE,
            f"GET {redact(file.url)} returned a file of {size} bytes, but according to its GGUF "
            f"header it has at least {layout.size}: the host has only a part of it",
        )


def _not_gguf(file: RemoteFile, part: PartialFile) -> DownloadError:
    part.discard()
    hint = ""
    if file.image is None and _is_markup(part.head):
        hint = "; use the download URL, for Hugging Face with /resolve/ in it"
    return DownloadError(
        Reason.MODEL_NOT_GGUF,
        f"GET {redact(file.url)} returned a file that is not GGUF: {kind_of(part.head)}{hint}",
    )


def _is_markup(head: bytes) -> bool:
    return head.lstrip().startswith(b"<")


def kind_of(head: bytes) -> str:
    """Describe a file that is not GGUF by its first bytes."""
    if not head:
        return "it is empty"
    if _is_markup(head):
        return "it is a web page"
    if head.isascii() and head.decode().isprintable():
        return f"it begins with {head.decode()!r}"
    return f"it begins with the bytes {head.hex(' ')}"
