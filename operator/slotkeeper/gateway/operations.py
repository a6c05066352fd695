"""What a request asks a model for, in the words of OpenTelemetry's conventions. Pure."""

from typing import Final

CHAT: Final = "chat"
TEXT: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
RERANK: Final = "rerank"
"""Not one of the conventions' values, which allow others."""

_OPERATIONS: Final = {
    b"chat/completions": CHAT,
    b"messages": CHAT,
    b"responses": CHAT,
    b"completion": TEXT,
    b"completions": TEXT,
    b"infill": TEXT,
    b"embedding": EMBEDDINGS,
    b"embeddings": EMBEDDINGS,
    b"rerank": RERANK,
    b"reranking": RERANK,
}


def operation(path: bytes) -> str | None:
    """Return the operation of a forwarded path; None if it uses no tokens, or reports none."""
    return _OPERATIONS.get(path.removeprefix(b"/").removeprefix(b"v1/"))
