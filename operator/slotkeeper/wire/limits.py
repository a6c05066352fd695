"""Limits on what a client may send, buffer and wait for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one listening address: sizes in bytes, times in seconds."""

    max_head: int = 32 * 1024
    """Request line and headers together; 431 if exceeded. nginx's default total."""

    max_body: int = 32 * 1024 * 1024
    """One request's body; 413 if exceeded. A prompt of a million tokens is about 4 MiB, as is a
    base64 photo, so this is far above real use and still small compared with a pod's memory."""

    max_buffered: int = 256 * 1024 * 1024
    """Request bodies of all connections in memory at the same time; 503 if exceeded."""

    head_timeout: float = 10.0
    """From a request's first byte to the end of its headers; then 408."""

    body_timeout: float = 30.0
    """Between two pieces of a body; then 408."""

    idle_timeout: float = 75.0
    """Between two requests on a connection; then it is closed without a response."""

    write_timeout: float = 60.0
    """How long a client may leave response data unread; then its connection is aborted. Without
    this limit a client that never reads would hold its slot indefinitely."""

    lingering_close: float = 2.0
    """How long a connection is still read after an error response, so that the client can read the
    response: closing a socket with unread bytes sends a reset, which overtakes the response."""


class BodyBudget:
    """Bytes of request bodies in memory, of all connections of a listener."""

    __slots__ = ("_limit", "buffered")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.buffered = 0

    def add(self, difference: int) -> bool:
        """Add `difference` bytes, which may be negative. Return whether the total is in budget."""
        self.buffered += difference
        return self.buffered <= self._limit
