"""How the sockets of both sides are set."""

import asyncio
import socket
import struct


class Pausable(asyncio.Protocol):
    """A protocol whose reading can be paused and resumed, however often each is asked for."""

    _transport: asyncio.Transport
    _paused = False
    _waiting = False

    def pause(self, paused: bool) -> None:
        """Read no more until called with False."""
        if paused == self._paused or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        elif not self._waiting:
            self._transport.resume_reading()

    def yield_to_loop(self) -> None:
        """Read no more in this round of the loop.

        uvloop reads a connection up to 32 times in a row, 8 MiB in all, as long as there is more:
        milliseconds in which no token moves.
        """
        if self._paused or self._waiting or self._transport.is_closing():
            return
        self._waiting = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        self._waiting = False
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()


def tune(transport: asyncio.BaseTransport) -> None:
    """Send each piece at once, and notice a peer that vanished without a word within a minute."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # A streamed token is one small packet: waiting for a fuller one costs up to 100 ms a token.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the other side sees a failure, not a regular end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        # Without lingering, closing sends a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
