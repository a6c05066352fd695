"""A response that passes through to the client as it arrives."""

from collections.abc import Iterable

from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Header, Response, ResponseHead, encode_response_head


class PassThrough:
    """Writes the response of an upstream to `exchange`, with its chunk framing where possible."""

    failure = ""
    """Nothing in a response can keep it from passing through."""
    __slots__ = ("_exchange", "_head", "close_ends_body", "unchanged")

    def __init__(self, exchange: Exchange) -> None:
        self.unchanged = True
        """The bytes of the body are sent as received, with their chunk framing."""
        self.close_ends_body = False
        """The end of the client's connection marks the end of the body."""
        self._exchange = exchange
        self._head: tuple[int, bytes] | None = None

    def begin(
        self, head: ResponseHead, framing: Framing, added: Iterable[Header], *, more: bool
    ) -> None:
        """Send the head with these further headers; `more`: bytes of the body follow at once."""
        exchange = self._exchange
        # HTTP/1.0 has no chunks: the client gets their content, and closing ends the body.
        self.unchanged = exchange.request.http11 or not framing.chunked
        self.close_ends_body = framing.until_close or not self.unchanged
        data = encode_response_head(
            head,
            chunked=framing.chunked and self.unchanged,
            connection=exchange.connection_header(closing=self.close_ends_body),
            added=added,
        )
        if more:
            self._head = head.status, data
        else:
            exchange.begin(head.status, data)

    def write(self, data: bytes) -> None:
        """Send bytes of the body."""
        if self._head:
            # The head in one packet with the first bytes of the body, if they arrived as one.
            (status, head) = self._head
            self._head = None
            self._exchange.begin(status, head + data)
        elif data:
            self._exchange.write(data)

    def finish(self) -> None:
        """Send what has not been sent yet: the response is complete."""
        self.write(b"")

    def error(self, response: Response) -> Response:
        """Return a complete error response unchanged."""
        return response

    def fail(self, message: str) -> bool:  # noqa: ARG002 (as for a translated response)
        """Return False: a response that passes through cannot end with an error of ours."""
        return False
