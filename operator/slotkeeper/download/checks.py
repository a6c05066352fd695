"""Verification of downloaded content. A partial file that fails is deleted: resuming is useless."""

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import PartialFile

MAGIC = b"GGUF"


def require_gguf_so_far(url: str, part: PartialFile) -> None:
    """Reject a web page or another format at its first bytes. Raises DownloadError."""
    if not MAGIC.startswith(part.head):
        raise _not_gguf(url, part)


def require_content(url: str, part: PartialFile, sha256: str | None) -> None:
    """Verify the format and the checksum of a complete file. Raises DownloadError."""
    if part.head != MAGIC:
        raise _not_gguf(url, part)
    if sha256 is not None and part.sha256 != sha256:
        part.discard()
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH,
            f"GET {redact(url)} returned {part.size} bytes with SHA-256 {part.sha256}, expected "
            f"{sha256}",
        )


def _not_gguf(url: str, part: PartialFile) -> DownloadError:
    part.discard()
    return DownloadError(
        Reason.MODEL_NOT_GGUF,
        f"GET {redact(url)} returned a file that is not GGUF: it begins with {part.head!r}",
    )
