"""Socket options and flow control for downstream and upstream connections."""

import asyncio
import socket
import struct

from slotkeeper.wire.budget import SEND_BUFFER

BACKLOG = 4096

ALL_ADDRESSES = "::"
"""All IPv6 and IPv4 addresses."""


def available(host: str) -> str:
    """Return `host`, or `0.0.0.0` for `::` if the kernel has no IPv6."""
    return "0.0.0.0" if host == ALL_ADDRESSES and not socket.has_dualstack_ipv6() else host


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError.

    `::` accepts IPv4 too, unlike in asyncio. If the kernel has no IPv6, it is `0.0.0.0`.
    """
    host = available(host)
    [(family, *_, address), *_] = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return socket.create_server(
        address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=host == ALL_ADDRESSES
    )


def join(host: str, port: int) -> str:
    """Return HOST:PORT, or [HOST]:PORT for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_address(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """Return host and port of the other side; None if it has none.

    An IPv4 client of a socket for both families has its IPv4 address.
    """
    peer = transport.get_extra_info("peername")
    return (str(peer[0]).removeprefix("::ffff:"), peer[1]) if peer else None


class Pausable(asyncio.Protocol):
    """A protocol whose reading can be paused and resumed. Repeated calls have no effect."""

    _transport: asyncio.Transport
    _paused = False
    _yielding = False

    def pause(self, paused: bool) -> None:
        """Stop reading, or (False) resume it."""
        if paused == self._paused or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        elif not self._yielding:
            self._transport.resume_reading()

    def yield_to_loop(self) -> None:
        """Stop reading for the rest of this iteration of the event loop.

        uvloop reads one connection up to 32 times in a row, 8 MiB in total, while data is
        available. That takes milliseconds, in which no stream makes progress.
        """
        if self._paused or self._yielding or self._transport.is_closing():
            return
        self._yielding = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._stop_yielding)

    def _stop_yielding(self) -> None:
        self._yielding = False
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()


def tune(transport: asyncio.BaseTransport, *, unread_seconds: float = 0) -> None:
    """Send each write at once, and detect a peer that vanished silently within a minute.

    `unread_seconds`: the kernel drops a connection whose peer reads nothing for so long, also once
    it is closed here; 0: it tries for a quarter of an hour.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # A streamed token is one small packet. Nagle's algorithm would delay it by up to 100 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Otherwise the kernel buffers up to 4 MiB for a peer that does not read.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BUFFER)
    if unread_seconds and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = max(1, int(unread_seconds * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset, so that the peer sees a failure and not a regular end."""
    sock = transport.get_extra_info("socket")
    # A transport that is closing is still open while it has data to send.
    is_open = not transport.is_closing() or transport.get_write_buffer_size()
    if sock is not None and is_open:
        # With a linger time of 0, closing sends a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
