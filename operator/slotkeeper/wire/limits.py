"""What a client may send, hold and wait for before it is refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one listening server; sizes in bytes, times in seconds."""

    max_head: int = 32 * 1024
    """Request line and headers together; beyond it 431. What nginx allows in all by default."""

    max_body: int = 32 * 1024 * 1024
    """One request's body; beyond it 413. A prompt of a million tokens is about 4 MiB and a photo
    in base64 as much, so this is far from real use and still small beside a pod's memory."""

    max_buffered: int = 256 * 1024 * 1024
    """Request bodies of all connections that are in memory at once; beyond it 503."""

    head_timeout: float = 10.0
    """From a request's first byte to the end of its headers; later it is 408."""

    body_timeout: float = 30.0
    """Between two pieces of a body; later it is 408."""

    idle_timeout: float = 75.0
    """Between two requests of a connection; later it is closed without a word."""

    write_timeout: float = 60.0
    """How long a client may take nothing of an answer that is ready for it. Else one that never
    reads would keep its slot for ever."""

    lingering_close: float = 2.0
    """How long a refused client is still read from, so that it gets to see the refusal: closing a
    socket with unread bytes resets it, and the reset overtakes the answer."""


class BodyBudget:
    """Bytes of request bodies in memory, of all connections of a server."""

    __slots__ = ("_limit", "buffered")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.buffered = 0

    def add(self, difference: int) -> bool:
        """Note `difference` more bytes (or fewer); whether all of them are within the limit."""
        self.buffered += difference
        return self.buffered <= self._limit
