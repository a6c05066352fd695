import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fake_llama import Call, FakeLlama, echo, stream_two_events
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.http_get import get
from slotkeeper.wire.message import ResponseHead
from wait_until import until

REQUEST = b"POST /completion HTTP/1.1\r\nContent-Length: 2\r\n\r\n"


class Recorder:
    """A receiver that records its callbacks."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.ended = asyncio.Event()
        self.began: bool | None = None
        self.reason = ""

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        del framing, more
        self.head = head

    def on_body(self, data: bytes, framing: Framing) -> None:
        del framing
        self.body += data

    def on_end(self) -> None:
        self.ended.set()

    def on_lost(self, reason: str, *, began: bool) -> None:
        self.reason, self.began = reason, began
        self.ended.set()


@asynccontextmanager
async def pool_to(port: int) -> AsyncIterator[Pool]:
    pool = Pool("127.0.0.1", port)
    async with asyncio.timeout(10):
        yield pool
    pool.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def replica_sending(*pieces: bytes) -> AsyncIterator[Pool]:
    """A server that responds to any request with these pieces, and then closes."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with pool_to(server.sockets[0].getsockname()[1]) as pool:
        yield pool
    server.close()


async def send_request(pool: Pool) -> tuple[Recorder, UpstreamConnection]:
    response, connection = Recorder(), pool.acquire() or await pool.connect()
    connection.send(REQUEST, [b"{}"], response)
    await response.ended.wait()
    return response, connection


async def test_a_connection_is_reused() -> None:
    async with FakeLlama(script=echo) as llama, pool_to(llama.port) as pool:
        _, first = await send_request(pool)
        response, second = await send_request(pool)

        assert first is second
        assert second.reused
        assert response.head
        assert llama.connections == 1


async def test_a_connection_that_the_replica_closed_is_not_reused() -> None:
    async with FakeLlama(script=echo) as llama, pool_to(llama.port) as pool:
        _, first = await send_request(pool)
        llama.calls[0].reset()
        await until(lambda: not first.usable)

        assert pool.acquire() is None


async def test_idle_connections_beyond_the_maximum_are_closed() -> None:
    async with FakeLlama(slots=2, script=echo) as llama, pool_to(llama.port) as pool:
        pool.max_idle = 1
        connections = [await pool.connect() for _ in range(2)]
        for connection in connections:
            pool.release(connection)

        assert [each.usable for each in connections] == [True, False]


async def test_a_chunked_response_that_arrives_byte_by_byte_passes_through_unchanged() -> None:
    body = b"5\r\nhello\r\n0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with replica_sending(*(bytes([byte]) for byte in head + body)) as pool:
        response, _ = await send_request(pool)

    assert response.body == body
    assert response.began is None


async def test_a_large_body_is_sent_completely_in_parts() -> None:
    parts = [bytes([number]) * 300_000 for number in range(20)]
    head = b"POST /completion HTTP/1.1\r\nContent-Length: 6000000\r\n\r\n"
    async with FakeLlama() as llama, pool_to(llama.port) as pool:
        for _ in range(2):
            response, connection = Recorder(), pool.acquire() or await pool.connect()
            connection.send(head, parts, response)
            await response.ended.wait()

        assert [call.body == b"".join(parts) for call in llama.calls] == [True, True]
        assert llama.connections == 1


@pytest.mark.parametrize("parts", [0, 1, 20])
async def test_it_is_reported_once_when_a_body_is_no_longer_needed(parts: int) -> None:
    sent: list[int] = []
    body = [b"x" * 300_000] * parts
    head = b"POST /completion HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (300_000 * parts)
    async with FakeLlama() as llama, pool_to(llama.port) as pool:
        response, connection = Recorder(), await pool.connect()
        connection.send(head, body, response, on_sent=lambda: sent.append(len(llama.calls)))
        await response.ended.wait()

        # Before the response.
        assert sent == [0]


async def test_a_body_that_is_not_sent_is_not_reported() -> None:
    sent: list[bool] = []
    data = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with replica_sending(data) as pool:
        response, connection = Recorder(), await pool.connect()
        body = [b"{}", *[b"x" * 1_000_000] * 30]
        connection.send(REQUEST, body, response, on_sent=lambda: sent.append(True))
        await response.ended.wait()

        assert sent == []


async def test_a_connection_whose_request_was_not_sent_completely_is_not_reused() -> None:
    data = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with replica_sending(data) as pool:
        response, connection = Recorder(), await pool.connect()
        connection.send(REQUEST, [b"{}", *[b"x" * 1_000_000] * 30], response)
        await response.ended.wait()

        assert response.head
        assert response.head.status == 413
        assert not connection.usable
        assert pool.acquire() is None


async def test_a_response_without_a_length_ends_with_its_connection() -> None:
    async with replica_sending(b"HTTP/1.0 200 OK\r\n\r\nhello") as pool:
        response, connection = await send_request(pool)

        assert (response.body, response.began) == (b"hello", None)
        assert not connection.usable


async def test_a_100_before_the_response_is_skipped() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with replica_sending(data) as pool:
        response, _ = await send_request(pool)

    assert response.head
    assert (response.head.status, response.body) == (200, b"ok")


async def test_responses_with_only_a_head_before_the_response_are_limited() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with replica_sending(early * 16 + b"HTTP/1.1 204 No Content\r\n\r\n") as pool:
        recorder, _ = await send_request(pool)
        await recorder.ended.wait()
        assert recorder.head
    async with replica_sending(early * 9, early * 9) as pool:
        recorder, connection = await send_request(pool)
        await recorder.ended.wait()
        assert recorder.reason == "invalid HTTP response: more than 16 informational responses"
        assert connection.malformed


async def test_bytes_after_a_response_are_discarded() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\n\r\nanother's"
    async with replica_sending(data) as pool:
        response, connection = await send_request(pool)

        assert response.body == b"ok"
        assert not connection.usable
        assert pool.acquire() is None


@pytest.mark.parametrize(
    ("began", "pieces"),
    [
        pytest.param(False, [], id="nothing"),
        pytest.param(True, [b"HTTP/1.1 2"], id="half a head"),
        pytest.param(True, [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal"], id="half a body"),
        pytest.param(True, [b"garbage\r\n\r\n"], id="garbage"),
        pytest.param(True, [b"x" * 100_000], id="an endless head"),
        pytest.param(True, [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], id="protocol upgrade"),
        pytest.param(
            True,
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
            id="two lengths",
        ),
        pytest.param(
            True, [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], id="bad chunk"
        ),
    ],
)
async def test_an_incomplete_or_invalid_response_reports_whether_it_began(
    began: bool, pieces: list[bytes]
) -> None:
    async with replica_sending(*pieces) as pool:
        response, connection = await send_request(pool)

        assert response.began is began
        assert not connection.usable


async def test_a_refused_connection_raises_an_os_error() -> None:
    async with FakeLlama() as llama:
        port = llama.port
    with pytest.raises(ConnectionRefusedError):
        await Pool("127.0.0.1", port).connect()
    with pytest.raises(ConnectionRefusedError):
        await get("127.0.0.1", port, "/health", seconds=1, max_bytes=1000)


async def test_a_paused_connection_reads_nothing_until_it_is_resumed() -> None:
    async def flood(call: Call) -> None:
        await call.send_head(chunked=False, length=30_000_000)
        await call.write(b"x" * 30_000_000)

    async with FakeLlama(script=flood) as llama, pool_to(llama.port) as pool:
        response, connection = Recorder(), await pool.connect()
        connection.send(REQUEST, [b"{}"], response)
        await until(lambda: response.body)
        connection.pause(True)
        received = len(response.body)
        await asyncio.sleep(0.01)
        assert len(response.body) == received < 30_000_000

        connection.pause(False)
        await response.ended.wait()
        assert len(response.body) == 30_000_000


async def test_an_aborted_request_closes_its_connection_without_a_callback() -> None:
    async with FakeLlama(script=stream_two_events) as llama, pool_to(llama.port) as pool:
        response, connection = Recorder(), await pool.connect()
        connection.send(REQUEST, [b"{}"], response)
        (call,) = await llama.wait_calls(1)
        connection.abort()

        await call.disconnected.wait()
        assert not response.ended.is_set()


async def test_a_get_ends_at_the_first_byte_that_is_too_many() -> None:
    ended = asyncio.Event()

    async def flood(call: Call) -> None:
        await call.send_head(chunked=False, length=10**12)
        try:
            while True:
                await call.write(b"x" * 10_000)
        finally:
            ended.set()

    async with FakeLlama(1) as llama:
        llama.state_scripts["/slots"] = flood
        with pytest.raises(OSError, match="more than 5000 bytes"):
            await get("127.0.0.1", llama.port, "/slots", seconds=5, max_bytes=5000)
        await ended.wait()


async def test_a_small_get_returns_status_and_body() -> None:
    async with FakeLlama(slots=1) as llama:
        status, body = await get("127.0.0.1", llama.port, "/slots", seconds=5, max_bytes=1000)

    assert status == 200
    assert body == b'[{"id": 0, "n_ctx": 512, "is_processing": false}]'
