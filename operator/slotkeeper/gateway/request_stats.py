"""Measurements of one forwarded request."""

from dataclasses import dataclass, field

from slotkeeper.edge.usage import BodyEdges
from slotkeeper.gateway.observed_response import ObservedResponse
from slotkeeper.gateway.operations import CHAT, TEXT, operation

_BYTES_PER_TOKEN = 4
"""About, in a response that is no stream."""


@dataclass(slots=True)
class RequestStats:
    """Measurements of one request. Times are seconds of the event loop's clock."""

    arrived_at: float
    received_bytes: int
    """Of the request's body."""
    first_byte_at: float | None = None
    """When the first byte of the response's body arrived."""
    sent_bytes: int = 0
    """Of the response's body."""
    error_code: str | None = None
    """Of the gateway's own error response."""
    edges: BodyEdges = field(default_factory=BodyEdges)
    """The first and last bytes of the response's body, which contain the token counts."""
    response: ObservedResponse = field(default_factory=ObservedResponse)

    def unreported_tokens(self, path: bytes, status: int) -> int:
        """Return about how many tokens were generated for a response that reports none.

        A client may close its connection before a stream reports them at its end, and
        `response_fields` of llama-server's /completion leaves them out.
        """
        if status != 200 or operation(path) not in {CHAT, TEXT}:
            return 0
        return self.response.events or self.sent_bytes // _BYTES_PER_TOKEN
