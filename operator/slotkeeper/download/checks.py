"""What a download's content must be. A part that fails is removed: more bytes will not mend it."""

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import PartialFile

MAGIC = b"GGUF"


def require_gguf_so_far(url: str, part: PartialFile) -> None:
    """Refuse a web page or another format at its first bytes, not after its last."""
    if not MAGIC.startswith(part.head):
        raise _no_gguf(url, part)


def require_content(url: str, part: PartialFile, sha256: str | None) -> None:
    """Refuse a part, said to be whole, that is no GGUF or has another sha256 than asked for."""
    if part.head != MAGIC:
        raise _no_gguf(url, part)
    if sha256 is not None and part.sha256 != sha256:
        part.discard()
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH,
            f"GET {redact(url)} gave {part.size} bytes with sha256 {part.sha256}, not {sha256}",
        )


def _no_gguf(url: str, part: PartialFile) -> DownloadError:
    part.discard()
    return DownloadError(
        Reason.MODEL_NOT_GGUF,
        f"GET {redact(url)} gave a file that is no GGUF: it begins with {part.head!r}",
    )
