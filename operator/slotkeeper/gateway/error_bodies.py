"""Error responses that are kept until they are complete, to decide about a fallback. Pure."""

from slotkeeper.bounded_json import parse
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.wire.message import Response, ResponseHead

MAX_BYTES = 64 * 1024
"""Of the body."""

# Codes of a balancer, docs/reference/errors.md.
_TRIGGERS: dict[str, Trigger] = {
    "queue_full": "Full",
    "queue_timeout": "Full",
    "buffer_limit": "Full",
    "cold_start_timeout": "Waking",
}
_UNSAFE = frozenset(
    ("replica_failed", "replica_unresponsive", "suspected_request", "server_failed")
)
"""The request may have crashed a replica, or may have kept it busy for minutes."""


class ErrorBody:
    """The head and the body of an error response."""

    __slots__ = ("_parts", "_size", "head")

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        """The content received so far."""
        return b"".join(self._parts)

    def append(self, data: bytes) -> bool:
        """Add a piece of the body. Return False if it is too long."""
        self._size += len(data)
        self._parts.append(data)
        return self._size <= MAX_BYTES


def server_trigger(status: int, body: bytes) -> tuple[Trigger | None, bool]:
    """Return the case in which a fallback is for an error of a server; None: it is for none.

    The second value: the request may have crashed a replica.
    """
    code = _code(body)
    if code in _TRIGGERS:
        return _TRIGGERS[code], False
    if status == 429:
        return "Full", False
    if status in {502, 503, 504}:
        return "Failed", code in _UNSAFE
    return None, False


def whole_response(head: ResponseHead, body: bytes) -> Response:
    """Return a complete error response as it is forwarded."""
    response = Response(head.status, body)
    for name, value in head.headers:
        lower = name.lower()
        if lower == b"content-type":
            response.content_type = value
        elif any(lower == kept for kept, _ in head.end_to_end) and lower != b"content-length":
            response.headers.append((name, value))
    return response


def _code(body: bytes) -> str:
    try:
        tree = parse(body, max_bytes=MAX_BYTES)
    except ValueError:
        return ""
    error = tree.get("error") if isinstance(tree, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""
