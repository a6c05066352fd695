import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fake_llama import Call, FakeLlama, answer_at_once, when_told
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.http_get import get
from slotkeeper.wire.message import ResponseHead
from wait_until import until

REQUEST = b"POST /completion HTTP/1.1\r\nContent-Length: 2\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Seen:
    """A receiver that keeps what it is told."""

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
async def answering(*pieces: bytes) -> AsyncIterator[Pool]:
    """A server that answers anything with these pieces, and closes after the last."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with pool_to(server.sockets[0].getsockname()[1]) as pool:
        yield pool
    server.close()


async def ask(pool: Pool) -> tuple[Seen, UpstreamConnection]:
    seen, connection = Seen(), pool.acquire() or await pool.connect()
    connection.send(REQUEST, [b"{}"], seen)
    await seen.ended.wait()
    return seen, connection


async def test_a_connection_is_used_again() -> None:
    async with FakeLlama(script=answer_at_once) as llama, pool_to(llama.port) as pool:
        _, first = await ask(pool)
        seen, second = await ask(pool)

        assert first is second
        assert second.reused
        assert seen.head
        assert llama.connections == 1


async def test_a_connection_that_the_replica_closed_is_not_used_again() -> None:
    async with FakeLlama(script=answer_at_once) as llama, pool_to(llama.port) as pool:
        _, first = await ask(pool)
        llama.calls[0].reset()
        await until(lambda: not first.usable)

        assert pool.acquire() is None


async def test_only_so_many_idle_connections_are_kept() -> None:
    async with FakeLlama(slots=2, script=answer_at_once) as llama, pool_to(llama.port) as pool:
        pool.max_idle = 1
        connections = [await pool.connect() for _ in range(2)]
        for connection in connections:
            pool.release(connection)

        assert [each.usable for each in connections] == [True, False]


async def test_a_chunked_answer_passes_through_byte_by_byte_as_it_came() -> None:
    body = b"5\r\nhello\r\n0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(*(bytes([byte]) for byte in head + body)) as pool:
        seen, _ = await ask(pool)

    assert seen.body == body
    assert seen.began is None


async def test_a_large_body_goes_out_in_parts_and_whole() -> None:
    parts = [bytes([number]) * 300_000 for number in range(20)]
    head = b"POST /completion HTTP/1.1\r\nContent-Length: 6000000\r\n\r\n"
    async with FakeLlama() as llama, pool_to(llama.port) as pool:
        for _ in range(2):
            seen, connection = Seen(), pool.acquire() or await pool.connect()
            connection.send(head, parts, seen)
            await seen.ended.wait()

        assert [call.body == b"".join(parts) for call in llama.calls] == [True, True]
        assert llama.connections == 1


async def test_a_connection_on_which_not_all_was_sent_is_not_used_again() -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as pool:
        seen, connection = Seen(), await pool.connect()
        connection.send(REQUEST, [b"{}", *[b"x" * 1_000_000] * 30], seen)
        await seen.ended.wait()

        assert seen.head
        assert seen.head.status == 413
        assert not connection.usable
        assert pool.acquire() is None


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n\r\nhello") as pool:
        seen, connection = await ask(pool)

        assert (seen.body, seen.began) == (b"hello", None)
        assert not connection.usable


async def test_a_100_before_the_answer_is_skipped() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with answering(answer) as pool:
        seen, _ = await ask(pool)

    assert seen.head
    assert (seen.head.status, seen.body) == (200, b"ok")


async def test_bytes_behind_an_answer_go_to_nobody() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\n\r\nanother's"
    async with answering(answer) as pool:
        seen, connection = await ask(pool)

        assert seen.body == b"ok"
        assert not connection.usable
        assert pool.acquire() is None


@pytest.mark.parametrize(
    ("began", "pieces"),
    [
        pytest.param(False, [], id="nothing"),
        pytest.param(True, [b"HTTP/1.1 2"], id="half a head"),
        pytest.param(True, [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal"], id="half a body"),
        pytest.param(True, [b"garbage\r\n\r\n"], id="garbage"),
        pytest.param(True, [b"x" * 100_000], id="a head without an end"),
        pytest.param(True, [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], id="switching"),
        pytest.param(
            True,
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
            id="two framings",
        ),
        pytest.param(
            True, [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], id="no chunk"
        ),
    ],
)
async def test_an_answer_that_breaks_off_is_told_with_whether_it_began(
    began: bool, pieces: list[bytes]
) -> None:
    async with answering(*pieces) as pool:
        seen, connection = await ask(pool)

        assert seen.began is began
        assert not connection.usable


async def test_a_replica_that_refuses_connections_is_an_os_error() -> None:
    async with FakeLlama() as llama:
        port = llama.port
    with pytest.raises(ConnectionRefusedError):
        await Pool("127.0.0.1", port).connect()
    with pytest.raises(ConnectionRefusedError):
        await get("127.0.0.1", port, "/health", seconds=1)


async def test_a_paused_connection_reads_nothing_until_it_goes_on() -> None:
    async def flood(call: Call) -> None:
        await call.head(chunked=False, length=30_000_000)
        await call.write(b"x" * 30_000_000)

    async with FakeLlama(script=flood) as llama, pool_to(llama.port) as pool:
        seen, connection = Seen(), await pool.connect()
        connection.send(REQUEST, [b"{}"], seen)
        await until(lambda: seen.body)
        connection.pause(True)
        had = len(seen.body)
        await asyncio.sleep(0.01)
        assert len(seen.body) == had < 30_000_000

        connection.pause(False)
        await seen.ended.wait()
        assert len(seen.body) == 30_000_000


async def test_an_aborted_request_closes_its_connection_and_tells_nobody() -> None:
    async with FakeLlama(script=when_told) as llama, pool_to(llama.port) as pool:
        seen, connection = Seen(), await pool.connect()
        connection.send(REQUEST, [b"{}"], seen)
        (call,) = await llama.called(1)
        connection.abort()

        await call.gone.wait()
        assert not seen.ended.is_set()


async def test_a_small_get_gives_status_and_content() -> None:
    async with FakeLlama(slots=1) as llama:
        status, body = await get("127.0.0.1", llama.port, "/slots", seconds=5)

    assert status == 200
    assert body == b'[{"id": 0, "n_ctx": 512, "is_processing": false}]'
