"""The body of a request that is handled while it arrives, for uploads larger than the memory."""

from collections.abc import Callable
from typing import Protocol


class BodyReader(Protocol):
    """Callbacks for the body of a request."""

    def on_request_body(self, data: bytes) -> None:
        """Handle a piece of the body."""

    def on_request_end(self) -> None:
        """Handle the end of the body. Not called if the client disconnects before."""


class BodyStream:
    """The body of one request, of `size` bytes, from the connection to its reader.

    Pieces that arrive before there is a reader wait: no more than one read of the connection, since
    that stops reading while it handles an earlier request.
    """

    __slots__ = ("_ended", "_pieces", "_reader", "complete", "on_pause", "paused", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.complete = False
        """All of it has arrived."""
        self.paused = False
        """The reader is slower than the client."""
        self.on_pause: Callable[[], None] | None = None
        """Called when `paused` has changed."""
        self._pieces: list[bytes] = []
        self._reader: BodyReader | None = None
        self._ended = False

    def start(self, reader: BodyReader) -> None:
        """Deliver the body to `reader`, what has arrived already at once."""
        self._reader = reader
        self.deliver()

    def stop(self) -> None:
        """Deliver no more: the reader has failed, or has responded already."""
        self._reader = None
        self._ended = True
        self._pieces = []

    def pause(self, paused: bool) -> None:
        """Stop the client from sending, or (False) let it continue."""
        if paused != self.paused and not (paused and self.complete):
            self.paused = paused
            if self.on_pause:
                self.on_pause()

    # Called by the parser and the connection.

    def append(self, data: bytes) -> None:
        """Add a piece, which `deliver` passes on."""
        if not self._ended:
            self._pieces.append(data)

    def deliver(self) -> None:
        """Pass what has arrived to the reader."""
        if self._reader is None:
            return
        pieces = self._pieces
        self._pieces = []
        for piece in pieces:
            self._deliver_piece(piece)
        if self.complete and not self._ended:
            self._ended = True
            self._reader.on_request_end()

    def _deliver_piece(self, piece: bytes) -> None:
        # The reader may have stopped at an earlier piece.
        if self._reader:
            self._reader.on_request_body(piece)
