"""The load generator's HTTP client, which does as little work as possible."""

import asyncio
import time
from typing import Protocol, cast

from typing_extensions import override

from bench.balancer.jobs import header_in

now_ns = time.monotonic_ns
_END = b"0\r\n\r\n"


class ResponseHandler(Protocol):
    """Callbacks for one response."""

    def on_data(self, data: bytes, now: int) -> None:
        """Bytes of the response, with head and chunk framing, received at `now` (nanoseconds)."""

    def on_end(self, status: int, body: bytes) -> None:
        """The response is complete, or the connection was lost (status 0).

        `body` is empty for a chunked response.
        """


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self) -> None:
        self._handler: ResponseHandler | None = None
        self._head = b""
        self._body = b""
        self._length = 0
        self._chunked = False
        self._transport: asyncio.Transport

    @property
    def usable(self) -> bool:
        """Whether the connection is open."""
        return not self._transport.is_closing()

    def send(self, request: bytes, handler: ResponseHandler) -> int:
        """Send a request; return the time in nanoseconds."""
        self._handler = handler
        self._head = self._body = b""
        sent = now_ns()
        self._transport.write(request)
        return sent

    def abort(self) -> None:
        """Close the connection, also in the middle of a response, without calling the handler."""
        self._handler = None
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        handler = self._handler
        self._handler = None
        if handler:
            handler.on_end(0, b"")

    @override
    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        now = now_ns()
        handler = self._handler
        if handler is None:
            return
        handler.on_data(data, now)
        if self._chunked and self._length:
            # The last bytes are enough to detect the end: no event ends like the last chunk.
            self._body = (self._body + data)[-len(_END) :]
            if self._body == _END:
                self._end(handler)
            return
        self._body += data
        if not self._length:
            end = self._body.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self._head = self._body[:end].lower()
            self._body = self._body[end:]
            length = header_in(self._head, b"content-length")
            self._chunked = length is None
            self._length = 1 if length is None else int(length)
            if self._chunked:
                self._body = self._body[-len(_END) :]
        if (self._body == _END) if self._chunked else (len(self._body) >= self._length):
            self._end(handler)

    def _end(self, handler: ResponseHandler) -> None:
        body = b"" if self._chunked else self._body
        status = int(self._head[9:12])
        if b"\r\nconnection: close" in self._head:
            self._transport.close()
        self._handler = None
        self._length = 0
        self._chunked = False
        handler.on_end(status, body)


class ConnectionPool:
    """Connections to one port. The most recently used idle connection is reused first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Client] = []

    async def acquire(self) -> Client:
        """Return an idle connection, or open one. Raises OSError."""
        while self._idle:
            client = self._idle.pop()
            if client.usable:
                return client
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, "127.0.0.1", self._port)
        return client

    def release(self, client: Client) -> None:
        """Return a connection to the pool."""
        self._idle.append(client)

    def close(self) -> None:
        """Close the idle connections."""
        for client in self._idle:
            client.abort()
        self._idle.clear()


class PendingResponse:
    """A ResponseHandler for waiting until the response begins or ends."""

    def __init__(self) -> None:
        self.first = 0
        """Time of the first bytes, in nanoseconds; 0 before."""
        self.began = asyncio.Event()
        self._ended: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    async def complete(self) -> tuple[int, bytes]:
        """Wait for the end; return status and body."""
        return await self._ended

    def on_data(self, data: bytes, now: int) -> None:  # noqa: ARG002 (the time counts, not the data)
        """See ResponseHandler."""
        if not self.first:
            self.first = now
            self.began.set()

    def on_end(self, status: int, body: bytes) -> None:
        """See ResponseHandler."""
        if not self._ended.done():
            self._ended.set_result((status, body))
