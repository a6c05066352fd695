"""Requests that are handled while their body arrives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from raw_http import RawClient, get
from slotkeeper.wire.body_filter import BodyFilter
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Request, Response
from slotkeeper.wire.server import Server
from wait_until import until

SIZE = 300_000
HEAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


class Uploads(BodyFilter):
    """Streams the bodies of /upload, and rejects those of /forbidden."""

    @override
    def streams(self, request: Request) -> bool:
        return request.path == b"/upload"

    @override
    def check(self, request: Request) -> None:
        if b"X-Wrong" in dict(request.headers):
            raise HttpError(401, "invalid_api_key", "wrong")


class Reader:
    """Handles requests, and reads one body after the other."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.data = bytearray()
        self.ended = 0
        self.disconnected = 0
        self.pauses_at = 10**9
        self.rejects_at = 10**9

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_disconnect = self.on_disconnect
        if stream := exchange.request.stream:
            assert exchange.request.parts == ()
            stream.start(self)
        else:
            exchange.respond(Response(200, b"no stream"))

    def on_disconnect(self) -> None:
        self.disconnected += 1

    def on_request_body(self, data: bytes) -> None:
        self.data += data
        exchange = self.exchanges[-1]
        assert exchange.request.stream
        if len(self.data) >= self.rejects_at:
            exchange.respond_with_error(HttpError(413, "file_too_large", "too large"))
        elif len(self.data) >= self.pauses_at:
            exchange.request.stream.pause(True)

    def on_request_end(self) -> None:
        self.ended += 1
        self.exchanges[-1].respond(Response(200, b"%d" % len(self.data)))


@asynccontextmanager
async def running(
    reader: Reader, limits: Limits | None = None
) -> AsyncIterator[tuple[Server, RawClient]]:
    server = Server(reader.handle, limits or Limits(max_body=50_000), Uploads())
    _, port = await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(10), await RawClient.connect(port) as client:
        yield server, client
    await server.close()


async def test_a_body_larger_than_the_limit_is_read_in_pieces() -> None:
    reader = Reader()
    async with running(reader) as (server, client):
        await client.send(HEAD % SIZE + b"x" * 1000)
        await until(lambda: len(reader.data) == 1000)
        assert server.listener.budget.buffered < 10_000
        await client.send(b"x" * (SIZE - 1000) + get("/after"))

        assert (await client.response()).body == b"%d" % SIZE
        # The connection goes on.
        assert (await client.response()).body == b"no stream"
        assert (reader.ended, reader.disconnected) == (1, 0)


async def test_other_bodies_keep_their_limit() -> None:
    reader = Reader()
    async with running(reader) as (_, client):
        await client.send((HEAD % SIZE).replace(b"/upload", b"/other"))

        assert (await client.response()).status == 413


@pytest.mark.parametrize("body", [b"x" * 100, b"Transfer-Encoding"])
async def test_small_and_chunked_bodies_are_read_before_the_request_is_handled(
    body: bytes,
) -> None:
    reader = Reader()
    async with running(reader) as (_, client):
        if body == b"Transfer-Encoding":
            head = b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head + b"3\r\nabc\r\n0\r\n\r\n")
        else:
            await client.send(HEAD % len(body) + body)

        assert (await client.response()).body == b"no stream"


async def test_a_reader_that_is_slower_pauses_the_client() -> None:
    reader = Reader()
    reader.pauses_at = 1000
    size = 20_000_000
    async with running(reader) as (_, client):
        sending = asyncio.create_task(client.send(HEAD % size + b"x" * size))
        await until(lambda: len(reader.data) > 1000)
        await asyncio.sleep(0.05)
        received = len(reader.data)
        await asyncio.sleep(0.05)
        assert len(reader.data) == received < size

        reader.pauses_at = 10**9
        stream = reader.exchanges[0].request.stream
        assert stream
        stream.pause(False)
        await sending
        assert (await client.response()).body == b"%d" % size


async def test_the_reader_is_told_when_the_client_disconnects() -> None:
    reader = Reader()
    async with running(reader) as (_, client):
        await client.send(HEAD % SIZE + b"x" * 1000)
        await until(lambda: reader.data)
        client.reset()
        await until(lambda: reader.disconnected)

        assert not reader.ended


async def test_a_body_that_does_not_continue_times_out() -> None:
    reader = Reader()
    limits = Limits(max_body=50_000, body_timeout=0.05)
    async with running(reader, limits) as (_, client):
        await client.send(HEAD % SIZE + b"x" * 1000)

        assert (await client.response()).status == 408
        assert await client.at_end()
        assert reader.disconnected == 1


async def test_a_paused_reader_does_not_time_out() -> None:
    reader = Reader()
    reader.pauses_at = 1
    limits = Limits(max_body=50_000, body_timeout=0.05)
    async with running(reader, limits) as (_, client):
        await client.send(HEAD % SIZE + b"x" * 1000)
        await until(lambda: reader.data)
        await asyncio.sleep(0.15)
        assert reader.disconnected == 0
        reader.pauses_at = 10**9
        stream = reader.exchanges[0].request.stream
        assert stream
        stream.pause(False)
        await client.send(b"x" * (SIZE - 1000))

        assert (await client.response()).status == 200


async def test_an_early_response_ends_the_connection() -> None:
    reader = Reader()
    reader.rejects_at = 1000
    async with running(reader) as (server, client):
        await client.send(HEAD % SIZE + b"x" * 2000)
        response = await client.response()

        assert response.status == 413
        assert response.headers["connection"] == "close"
        await client.send(b"x" * 100_000)
        assert await client.at_end()
        # What follows is not delivered.
        assert len(reader.data) == 2000
        await until(lambda: not len(server.listener.connections))
        assert server.listener.budget.buffered == 0


async def test_a_body_is_asked_for_once_there_is_a_reader() -> None:
    reader = Reader()
    async with running(reader) as (_, client):
        head = (HEAD % SIZE).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        await client.send(head)
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"x" * SIZE)

        assert (await client.response()).status == 200


async def test_a_body_without_an_api_key_is_not_asked_for() -> None:
    reader = Reader()
    async with running(reader) as (_, client):
        head = (HEAD % SIZE).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nX-Wrong: 1\r\n\r\n")
        await client.send(head)

        assert (await client.response()).status == 401
        assert reader.exchanges == []
