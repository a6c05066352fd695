"""The load generator's side of a connection: as little work as a client can do."""

import asyncio
import time
from typing import Protocol, cast

from typing_extensions import override

from bench.balancer.jobs import header_in

now_ns = time.monotonic_ns
_END = b"0\r\n\r\n"


class Asker(Protocol):
    """Who asked: gets the answer's bytes as they come, then its end."""

    def on_data(self, data: bytes, now: int) -> None:
        """Bytes of the answer, its head and chunk framing among them, at `now` in nanoseconds."""

    def on_end(self, status: int, body: bytes) -> None:
        """The answer is complete; status 0: the connection broke. Streams leave `body` empty."""


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._asker: Asker | None = None
        self._head = b""
        self._body = b""
        self._need = 0
        self._chunked = False
        self._transport: asyncio.Transport

    @property
    def usable(self) -> bool:
        """It can carry a request."""
        return not self._transport.is_closing()

    def ask(self, request: bytes, asker: Asker) -> int:
        """Send a request; when, in nanoseconds."""
        self._asker = asker
        self._head = self._body = b""
        sent = now_ns()
        self._transport.write(request)
        return sent

    def abort(self) -> None:
        """Be gone, in the middle of an answer too."""
        self._asker = None
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        asker = self._asker
        self._asker = None
        if asker:
            asker.on_end(0, b"")

    @override
    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        now = now_ns()
        asker = self._asker
        if asker is None:
            return
        asker.on_data(data, now)
        if self._chunked and self._need:
            # The last bytes are enough to know the end by: no event ends as the last chunk does.
            self._body = (self._body + data)[-len(_END) :]
            if self._body == _END:
                self._end(asker)
            return
        self._body += data
        if not self._need:
            end = self._body.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self._head = self._body[:end].lower()
            self._body = self._body[end:]
            length = header_in(self._head, b"content-length")
            self._chunked = length is None
            self._need = 1 if length is None else int(length)
            if self._chunked:
                self._body = self._body[-len(_END) :]
        if (self._body == _END) if self._chunked else (len(self._body) >= self._need):
            self._end(asker)

    def _end(self, asker: Asker) -> None:
        body = b"" if self._chunked else self._body
        status = int(self._head[9:12])
        if b"\r\nconnection: close" in self._head:
            self._transport.close()
        self._asker = None
        self._need = 0
        self._chunked = False
        asker.on_end(status, body)


class Clients:
    """Connections to one port; those at rest are used again, the last used first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._resting: list[Client] = []

    async def take(self) -> Client:
        """A connection. Raises OSError."""
        while self._resting:
            client = self._resting.pop()
            if client.usable:
                return client
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, "127.0.0.1", self._port)
        return client

    def give_back(self, client: Client) -> None:
        """It may carry another request."""
        self._resting.append(client)

    def close(self) -> None:
        """Close those at rest."""
        for client in self._resting:
            client.abort()
        self._resting.clear()


class Answer:
    """An Asker that waits for one whole answer."""

    def __init__(self) -> None:
        self.first = 0
        """When its first bytes came, in nanoseconds."""
        self.began = asyncio.Event()
        self._ended: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    async def whole(self) -> tuple[int, bytes]:
        """Status and body."""
        return await self._ended

    def on_data(self, data: bytes, now: int) -> None:  # noqa: ARG002 (only when, not what)
        """See Asker."""
        if not self.first:
            self.first = now
            self.began.set()

    def on_end(self, status: int, body: bytes) -> None:
        """See Asker."""
        if not self._ended.done():
            self._ended.set_result((status, body))
