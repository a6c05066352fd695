"""One request and its response, as a handler sees them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response, encode_response


class Channel(Protocol):
    """The part of a client's connection that an exchange uses."""

    peer: str
    """HOST:PORT of the client; empty if unknown."""
    write_paused: bool
    """The client reads more slowly than the response is written."""
    draining: bool
    """The connection closes after this response."""

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""

    def exchange_ended(self) -> None:
        """Continue with the next request: the response is complete."""

    def update_buffered(self) -> bool:
        """Recount the body bytes in memory. Return False if they grow beyond the budget."""

    def close(self, *, reset: bool) -> None:
        """Close after what is already written, or (`reset`) at once with a TCP reset."""


class Exchange:
    """One request and its response. Ends exactly once: completed, aborted or disconnected."""

    __slots__ = (
        "_channel",
        "_open",
        "on_backpressure",
        "on_disconnect",
        "peer",
        "request",
        "status",
    )

    def __init__(self, channel: Channel, request: Request) -> None:
        self._channel = channel
        self._open = True
        self.request = request
        self.peer = channel.peer
        self.status = 0
        """Status of the response; 0 before its head is sent."""
        self.on_disconnect: Callable[[], None] | None = None
        """Called at once when the client closes the connection or only its sending side."""
        self.on_backpressure: Callable[[bool], None] | None = None
        """Called with True when the client reads too slowly, with False when it has caught up."""

    @property
    def is_open(self) -> bool:
        """Whether the response is not complete, and the client has not disconnected."""
        return self._open

    @property
    def paused(self) -> bool:
        """Whether the client currently reads too slowly."""
        return self._channel.write_paused

    def respond(self, response: Response) -> None:
        """Send a complete response."""
        data = encode_response(
            response, body=self.request.method != b"HEAD", connection=self.connection_header()
        )
        self.begin(response.status, data)
        self.end()

    def respond_with_error(self, error: HttpError) -> None:
        """Send an error response."""
        self.respond(error.response())

    def connection_header(self, *, closing: bool = False) -> bytes | None:
        """Return the value of the response's Connection header; None: no such header.

        `closing`: the end of the connection marks the end of the response.
        """
        if closing:
            self.request.keep_alive = False
        stream = self.request.stream
        if stream and not stream.complete:
            # The client still sends, and would not get a response to what follows.
            self.request.keep_alive = False
        if not self.request.keep_alive or self._channel.draining:
            return b"close"
        return None if self.request.http11 else b"keep-alive"

    def begin(self, status: int, head: bytes) -> None:
        """Send the head of the response. The first bytes of its body may follow in `head`."""
        self.status = status
        self._channel.write(head)

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body."""
        self._channel.write(data)

    def end(self) -> None:
        """Mark the response as complete."""
        if self._open:
            self._open = False
            self._channel.exchange_ended()

    def abort(self, *, reset: bool) -> None:
        """Close the connection: the response cannot be completed, and the client must notice.

        `reset`: needed where a regular close would look like the regular end of the response.
        """
        if self._open:
            self._open = False
            self._channel.close(reset=reset)

    def release_body(self) -> None:
        """Free the request's body: it will not be sent again."""
        self.request.parts = ()
        self.request.size = 0
        self._channel.update_buffered()

    def replace_body(self, parts: Sequence[bytes]) -> None:
        """Put another body in place of the request's."""
        self.request.parts = parts
        self.request.size = sum(map(len, parts))
        self._channel.update_buffered()

    def client_disconnected(self) -> None:
        """Mark the exchange as ended and call on_disconnect. For the connection only."""
        self._open = False
        if self.on_disconnect:
            self.on_disconnect()


Handler = Callable[[Exchange], None]
"""Handles a complete request. Called in the event loop; must not block."""
