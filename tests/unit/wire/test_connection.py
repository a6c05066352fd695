import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from raw_http import RawClient, get, post
from slotkeeper.wire.connection import DownstreamConnection
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Response, json_response
from slotkeeper.wire.server import Server
from wait_until import until


def echo(exchange: Exchange) -> None:
    request = exchange.request
    exchange.respond(Response(200, b"%s %s" % (request.target, request.body)))


class HoldingHandler:
    """A handler that holds each exchange open until the test responds."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.disconnected = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_disconnect = self.disconnected.set

    async def received(self, count: int) -> list[Exchange]:
        await until(lambda: len(self.exchanges) >= count)
        return self.exchanges


@asynccontextmanager
async def running_server(
    handler: Callable[[Exchange], None], limits: Limits | None = None
) -> AsyncIterator[tuple[Server, RawClient]]:
    server = Server(handler, limits)
    _, port = await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(10), await RawClient.connect(port) as client:
        yield server, client
    await server.close()


def error_code(body: bytes) -> str:
    code: str = json.loads(body)["error"]["code"]
    return code


async def test_other_tasks_run_between_the_pieces_of_a_large_body() -> None:
    body, loop, rounds = b"x" * 8_000_000, asyncio.get_running_loop(), 0
    async with running_server(echo) as (server, client):
        await client.request(post("/"))
        # Sent without the loop: the system's buffers are full before the server reads.
        sent = _send_what_fits(client, post("/", body))
        received = sent - len(post("/", body)) + len(body)
        done = asyncio.Event()

        def count_round() -> None:
            nonlocal rounds
            rounds += 1
            if server.listener.budget.buffered >= received:
                done.set()
            else:
                loop.call_soon(count_round)

        loop.call_soon(count_round)
        await done.wait()

        assert sent > 1_000_000
        assert rounds >= sent / 300_000
        await client.send(post("/", body)[sent:])
        assert (await client.response()).body == b"/ " + body
        assert (await client.request(post("/next"))).body == b"/next {}"


def _send_what_fits(client: RawClient, data: bytes) -> int:
    sock, sent = client.writer.get_extra_info("socket").dup(), 0
    try:
        while True:
            sent += sock.send(data[sent : sent + 100_000])
    except BlockingIOError:
        return sent
    finally:
        sock.close()


async def test_requests_on_one_connection_are_served_one_after_the_other() -> None:
    async with running_server(echo) as (_, client):
        for number in range(3):
            response = await client.request(post(f"/{number}", b"body"))

            assert response.body == b"/%d body" % number


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with running_server(echo) as (_, client):
        for byte in post("/slow", b"body"):
            await client.send(bytes([byte]))

        assert (await client.response()).body == b"/slow body"


async def test_pipelined_requests_are_served_in_order() -> None:
    async with running_server(echo) as (_, client):
        await client.send(post("/1") + get("/2") + post("/3", b"three"))

        bodies = [(await client.response()).body for _ in range(3)]
    assert bodies == [b"/1 {}", b"/2 ", b"/3 three"]


async def test_a_pipelined_request_is_served_after_the_previous_response() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (_, client):
        await client.send(post("/1") + post("/2"))
        first = (await handler.received(1))[0]
        await asyncio.sleep(0)
        assert len(handler.exchanges) == 1

        first.respond(Response(200, b"one"))
        (await handler.received(2))[1].respond(Response(200, b"two"))

        assert [(await client.response()).body for _ in range(2)] == [b"one", b"two"]


async def test_garbage_after_a_request_is_rejected_after_its_response() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (_, client):
        await client.send(post("/1") + b"\x00\r\n\r\n")
        (await handler.received(1))[0].respond(Response(200, b"one"))

        assert (await client.response()).body == b"one"
        rejected = await client.response()
        assert (rejected.status, rejected.headers["connection"]) == (400, "close")
        assert await client.at_end()


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with running_server(echo) as (_, client):
        head, body = post("/x", b"body", "Expect: 100-continue").split(b"\r\n\r\n")
        assert (await client.request(head + b"\r\n\r\n")).status == 100

        assert (await client.request(body)).body == b"/x body"


async def test_a_body_too_large_is_rejected_without_100_continue() -> None:
    async with running_server(echo, Limits(max_body=10)) as (_, client):
        head = post("/x", b"x" * 11, "Expect: 100-continue").split(b"\r\n\r\n")[0]
        response = await client.request(head + b"\r\n\r\n")

        assert (response.status, error_code(response.body)) == (413, "body_too_large")


async def test_a_client_that_is_still_sending_can_read_the_error_response() -> None:
    async with running_server(echo, Limits(max_body=10)) as (_, client):
        client.writer.write(post("/x", b"x" * 4_000_000))

        assert (await client.response()).status == 413


async def test_headers_too_large_are_rejected() -> None:
    async with running_server(echo) as (_, client):
        response = await client.request(get("/", "X: " + "x" * 40_000))

        assert (response.status, error_code(response.body)) == (431, "headers_too_large")
        assert await client.at_end()


@pytest.mark.parametrize("start", [b"POST / HTTP/1.1\r\nHo", post("/", b"xx")[:-1]])
async def test_a_request_that_stalls_is_rejected(start: bytes) -> None:
    async with running_server(echo, Limits(head_timeout=0.02, body_timeout=0.02)) as (_, client):
        response = await client.request(start)

        assert (response.status, response.headers["connection"]) == (408, "close")


async def test_slow_header_bytes_do_not_extend_the_timeout() -> None:
    async with running_server(echo, Limits(head_timeout=0.1)) as (_, client):

        async def trickle() -> None:
            for byte in get("/", "X: " + "x" * 2000):
                await client.send(bytes([byte]))
                await asyncio.sleep(0.005)

        trickling = asyncio.ensure_future(trickle())
        assert (await client.response()).status == 408
        trickling.cancel()


async def test_an_idle_connection_is_closed_without_a_response() -> None:
    async with running_server(echo, Limits(idle_timeout=0.02)) as (_, client):
        assert await client.at_end()


BODY = b"x" * 60_000


async def test_requests_beyond_the_memory_budget_are_rejected() -> None:
    handler = HoldingHandler()
    async with running_server(handler, Limits(max_buffered=100_000)) as (_, client):
        await client.send(post("/", BODY))
        first = (await handler.received(1))[0]
        async with await RawClient.connect(client.port) as second:
            response = await second.request(post("/", BODY)[:-10])
            assert (response.status, error_code(response.body)) == (503, "buffer_limit")

        first.release_body()
        async with await RawClient.connect(client.port) as third:
            await third.send(post("/", BODY))
            await handler.received(2)


async def test_a_body_over_the_budget_that_arrives_in_one_piece_is_only_rejected() -> None:
    handler = HoldingHandler()
    async with running_server(handler, Limits(max_buffered=100_000, lingering_close=0.02)) as (
        server,
        client,
    ):
        await client.send(post("/", BODY))
        await handler.received(1)
        occupied = server.listener.budget.buffered
        async with await RawClient.connect(client.port) as second:
            await second.send(post("/", BODY))
            response = await second.response()
            assert (response.status, error_code(response.body)) == (503, "buffer_limit")
            assert await second.at_end()

        assert len(handler.exchanges) == 1
        assert 60_000 < occupied < 65_000
        assert server.listener.budget.buffered == occupied


async def test_a_closed_connection_frees_its_part_of_the_memory_budget() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (server, client):
        await client.send(post("/", b"x" * 80) + post("/", b"x" * 80))
        await handler.received(1)
        client.reset()
        await handler.disconnected.wait()
        await until(lambda: not server.listener.connections)

        assert server.listener.budget.buffered == 0


async def test_a_head_request_gets_no_body() -> None:
    async with running_server(echo) as (_, client):
        await client.send(get("/x", method="HEAD") + get("/y"))

        assert (await client.response(to_head=True)).headers["content-length"] == "3"
        assert (await client.response()).body == b"/y "


async def test_connection_close_closes_the_connection_after_the_response() -> None:
    async with running_server(echo) as (_, client):
        response = await client.request(get("/", "Connection: close"))

        assert response.headers["connection"] == "close"
        assert await client.at_end()


async def test_an_http_1_0_client_keeps_its_connection_with_keep_alive() -> None:
    async with running_server(echo) as (_, client):
        response = await client.request(get("/", "Connection: keep-alive", version="1.0"))
        assert response.headers["connection"] == "keep-alive"

        await client.request(get("/", version="1.0"))
        assert await client.at_end()


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_client_that_disconnects_is_detected_at_once(how: str) -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (_, client):
        await client.send(post("/"))
        exchange = (await handler.received(1))[0]
        if how == "close":
            client.writer.close()
        elif how == "half-close":
            client.writer.write_eof()
        else:
            client.reset()
        await handler.disconnected.wait()

        exchange.respond(Response(200))
        assert exchange.status == 200


async def test_a_slow_client_causes_back_pressure_until_it_has_caught_up() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (_, client):
        await client.send(post("/"))
        exchange = (await handler.received(1))[0]
        paused: asyncio.Queue[bool] = asyncio.Queue()
        exchange.on_backpressure = paused.put_nowait
        size = 16_000_000
        exchange.begin(200, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        exchange.write(b"x" * size)

        assert await paused.get() is True
        assert exchange.paused
        assert len((await client.response()).body) == size
        assert await paused.get() is False


async def test_a_client_that_never_reads_is_disconnected() -> None:
    handler = HoldingHandler()
    async with running_server(handler, Limits(write_timeout=0.05)) as (_, client):
        await client.send(post("/"))
        exchange = (await handler.received(1))[0]
        exchange.begin(200, b"HTTP/1.1 200 OK\r\nContent-Length: 32000000\r\n\r\n")
        exchange.write(b"x" * 32_000_000)

        await handler.disconnected.wait()


async def test_a_handler_that_fails_affects_only_its_own_request() -> None:
    def fail(exchange: Exchange) -> None:
        if exchange.request.path == b"/bad":
            raise ValueError("no")
        exchange.respond(json_response(200, {}))

    async with running_server(fail) as (_, client):
        assert (await client.request(get("/bad"))).status == 500
        async with await RawClient.connect(client.port) as other:
            assert (await other.request(get("/good"))).status == 200


async def test_each_write_is_sent_at_once() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (server, client):
        await client.send(post("/"))
        await handler.received(1)
        (connection,) = server.listener.connections
        assert isinstance(connection, DownstreamConnection)
        sock = connection._transport.get_extra_info("socket")

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_draining_closes_idle_connections_now_and_busy_ones_after_their_response() -> None:
    handler = HoldingHandler()
    async with running_server(handler) as (server, client):
        await client.send(post("/"))
        exchange = (await handler.received(1))[0]
        async with await RawClient.connect(client.port) as idle:
            await until(lambda: len(server.listener.connections) == 2)
            server.drain()
            assert await idle.at_end()

        exchange.respond(Response(200))
        assert (await client.response()).headers["connection"] == "close"
        assert await client.at_end()
