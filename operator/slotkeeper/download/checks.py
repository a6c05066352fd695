"""What a download's content must be. A part that fails is removed: more bytes will not mend it."""

from slotkeeper.download.address import shown
from slotkeeper.download.errors import FetchError, Reason
from slotkeeper.download.partial_file import Part

MAGIC = b"GGUF"


def require_gguf_so_far(url: str, part: Part) -> None:
    """Refuse a web page or another format at its first bytes, not after its last."""
    if not MAGIC.startswith(part.head):
        raise _no_gguf(url, part)


def require_content(url: str, part: Part, sha256: str | None) -> None:
    """Refuse a part, said to be whole, that is no GGUF or has another sha256 than asked for."""
    if part.head != MAGIC:
        raise _no_gguf(url, part)
    if sha256 is not None and part.sha256 != sha256:
        part.discard()
        raise FetchError(
            Reason.CHECKSUM_MISMATCH,
            f"GET {shown(url)} gave {part.size} bytes with sha256 {part.sha256}, not {sha256}",
        )


def _no_gguf(url: str, part: Part) -> FetchError:
    part.discard()
    return FetchError(
        Reason.NOT_GGUF,
        f"GET {shown(url)} gave a file that is no GGUF: it begins with {part.head!r}",
    )
