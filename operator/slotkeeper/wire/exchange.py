"""One request and its answer, as a handler sees them."""

from collections.abc import Callable
from typing import Protocol

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, Response, encode_response


class Channel(Protocol):
    """The part of a client's connection that an exchange uses."""

    peer: str
    """The client's HOST:PORT; empty if unknown."""
    write_paused: bool
    """The client reads more slowly than the response is written."""
    draining: bool
    """The connection is closed after this response."""

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""

    def exchange_ended(self) -> None:
        """Go on to the next request: the response is complete."""

    def update_buffered(self) -> bool:
        """Account for request bodies in memory; False if they exceed the body budget."""

    def close(self, *, reset: bool) -> None:
        """Close the connection; `reset`: at once, with a TCP reset."""


class Exchange:
    """One request and its answer. Ends exactly once: answered, cut, or the client gone."""

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
        """What the client was answered; 0 while it was not."""
        self.on_disconnect: Callable[[], None] | None = None
        """Called at once when the client goes away (also by closing only its sending side)."""
        self.on_backpressure: Callable[[bool], None] | None = None
        """Called with True when the client does not keep up, with False when it does again."""

    @property
    def paused(self) -> bool:
        """The client does not keep up at the moment."""
        return self._channel.write_paused

    def respond(self, answer: Response) -> None:
        """Answer with something complete of our own."""
        data = encode_response(
            answer, body=self.request.method != b"HEAD", connection=self.connection_header()
        )
        self.begin(answer.status, data)
        self.end()

    def respond_with_error(self, refusal: HttpError) -> None:
        """Answer with a refusal."""
        self.respond(refusal.response())

    def connection_header(self, *, closing: bool = False) -> bytes | None:
        """What the answer must say of the connection; `closing`: its end ends the answer."""
        if closing:
            self.request.keep_alive = False
        if not self.request.keep_alive or self._channel.draining:
            return b"close"
        return None if self.request.http11 else b"keep-alive"

    def begin(self, status: int, head: bytes) -> None:
        """Send the head of an answer."""
        self.status = status
        self._channel.write(head)

    def write(self, data: bytes) -> None:
        """Send a part of the answer's body."""
        self._channel.write(data)

    def end(self) -> None:
        """The answer is complete."""
        if self._open:
            self._open = False
            self._channel.exchange_ended()

    def abort(self, *, reset: bool) -> None:
        """The answer can not be completed, and the client must see that it is not.

        `reset` where closing would look like the regular end of the answer.
        """
        if self._open:
            self._open = False
            self._channel.close(reset=reset)

    def release_body(self) -> None:
        """Forget the request's body: it will not be sent again."""
        self.request.parts = ()
        self.request.size = 0
        self._channel.update_buffered()

    def client_disconnected(self) -> None:
        """The connection says that the client is gone."""
        self._open = False
        if self.on_disconnect:
            self.on_disconnect()


Handler = Callable[[Exchange], None]
"""What is done with a complete request. Called in the event loop, must return at once."""
