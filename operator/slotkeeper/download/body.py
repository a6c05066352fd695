"""The bytes of a response in large blocks, as fast as the network and the disk allow.

The HTTP library parses and copies each 64 KiB of a body, which takes as much CPU as to receive it.
A body whose length was announced needs no parser, and is read from the connection itself.
"""

import socket
from collections.abc import Callable, Iterator

import httpcore
import httpx

from slotkeeper.download.minimum_speed import MinimumSpeed

BLOCK_BYTES = 1024**2
"""In smaller blocks, to hand them over to the thread that hashes them takes more CPU."""

BLOCK_SECONDS = 0.5
"""How long bytes of a slow host are held back at most, to be yielded together."""

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds. The read timeout applies between two chunks: a whole download may take hours."""


def blocks(response: httpx.Response, clock: Callable[[], float]) -> Iterator[bytes | memoryview]:
    """Yield the bytes as sent: those are counted, hashed and resumed. A block is valid until the
    next but one is requested.

    Raises httpx.RequestError, or DownloadError if the host sends almost nothing, after all bytes
    before the failure.
    """
    speed = MinimumSpeed(clock)
    length = _announced_length(response)
    chunks = response.iter_raw()
    position = 0
    for chunk in chunks:
        speed.received(len(chunk))
        yield chunk
        position += len(chunk)
        # The library has returned all that it had received.
        if length is not None and length - position >= BLOCK_BYTES:
            break
    else:
        return
    yield from _Reader(response.extensions["network_stream"], clock, speed).read(position, length)


def _announced_length(response: httpx.Response) -> int | None:
    """Return the length of a body that is nothing but its bytes; None for all others."""
    stream = response.extensions.get("network_stream")
    length = response.headers.get("content-length", "")
    if stream is None or not response.http_version.startswith("HTTP/1."):
        return None
    return int(length) if length.isdecimal() and not is_chunked(response) else None


def is_chunked(response: httpx.Response) -> bool:
    """Whether the end of a body is marked in it."""
    return "transfer-encoding" in response.headers


class _Reader:
    """Reads the rest of a body from a connection.

    The library closes the connection after that, because it has not seen the end of the response.
    """

    def __init__(
        self, stream: httpcore.NetworkStream, clock: Callable[[], float], speed: MinimumSpeed
    ) -> None:
        self._stream = stream
        self._socket = _socket(stream)
        self._clock = clock
        self._speed = speed

    def read(self, position: int, length: int) -> Iterator[memoryview]:
        """Yield the bytes from `position` of a body of this length."""
        block, other = memoryview(bytearray(BLOCK_BYTES)), memoryview(bytearray(BLOCK_BYTES))
        while position < length:
            filled = 0
            try:
                for size in self._fill(block[: length - position]):
                    filled += size
            except Exception:
                yield block[:filled]
                raise
            position += filled
            yield block[:filled]
            block, other = other, block

    def _fill(self, block: memoryview) -> Iterator[int]:
        """Fill a block, or a part of it if that takes long; yield how many bytes were added."""
        since = self._clock()
        while block and self._clock() - since < BLOCK_SECONDS:
            # With TLS, a read returns at most 16 KiB.
            size = self._receive(block)
            block = block[size:]
            yield size
            self._speed.received(size)

    def _receive(self, block: memoryview) -> int:
        """Receive some bytes into `block`; return how many."""
        try:
            size = self._receive_any(block)
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise httpx.ReadTimeout(str(error)) from error
        except (httpcore.NetworkError, OSError) as error:
            raise httpx.ReadError(str(error)) from error
        if not size:
            raise httpx.RemoteProtocolError("peer closed connection before the end of the body")
        return size

    def _receive_any(self, block: memoryview) -> int:
        # The library would allocate and copy each chunk, which costs as much as to receive it.
        if self._socket is not None:
            return self._socket.recv_into(block)
        chunk = self._stream.read(len(block), TIMEOUT.read)
        block[: len(chunk)] = chunk
        return len(chunk)


def _socket(stream: httpcore.NetworkStream) -> socket.socket | None:
    """The connection's socket, which returns the bytes that `stream` would.

    None where it would not: in TLS through a proxy with TLS, it returns what the proxy encrypted.
    """
    connection = stream.get_extra_info("socket")
    tls = stream.get_extra_info("ssl_object")
    if not isinstance(connection, socket.socket) or (tls is not None and tls is not connection):
        return None
    connection.settimeout(TIMEOUT.read)
    return connection
