"""Limits on what a client may send, buffer and wait for."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one listening address: sizes in bytes, times in seconds."""

    max_head: int = 32 * 1024
    """Request line and headers together; 431 if exceeded. nginx's default total."""

    max_line: int = 8 * 1024
    """One line of the head with its CRLF; 414 or 431 if exceeded. llama-server's HTTP library
    responds to a longer one with an empty 400, or closes the connection."""

    max_headers: int = 96
    """Number of headers; 431 if exceeded. llama-server's HTTP library accepts 100, and up to 4 are
    added when a request is forwarded."""

    max_body: int = 32 * MIB
    """One request's body; 413 if exceeded. A prompt of a million tokens is about 4 MiB, as is a
    base64 photo, so this is far above real use and still small compared with a pod's memory."""

    max_buffered: int = 256 * MIB
    """Requests of all connections in memory at the same time, heads included, and responses that
    clients do not read; 503 if exceeded. A quarter of it at most before authentication."""

    max_connections: int = 4096
    """Open connections. A further one displaces one that has no request in progress."""

    max_connections_per_address: int = 2048
    """Open connections of one client address, or IPv6 /64 network."""

    head_timeout: float = 10.0
    """From a request's first byte to the end of its headers; then 408."""

    body_timeout: float = 30.0
    """Between two pieces of a body; then 408."""

    idle_timeout: float = 75.0
    """Between two requests on a connection; then it is closed without a response."""

    write_timeout: float = 60.0
    """How long a client may leave response data unread; then its connection is reset. Without
    this limit a client that never reads would hold its slot indefinitely."""

    lingering_close: float = 2.0
    """How long a connection is still read after an error response, so that the client can read the
    response: closing a socket with unread bytes sends a reset, which overtakes the response."""


def metrics_port_limits() -> Limits:
    """Return the limits of the metrics port, whose requests have no body and come from few."""
    return Limits(
        max_body=0,
        max_buffered=16 * MIB,
        max_connections=256,
        max_connections_per_address=128,
    )
