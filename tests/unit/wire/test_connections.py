import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from raw_http import RawClient, get, post
from slotkeeper.wire.connections import Closed, network_of
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.limits import Limits, metrics_port_limits
from slotkeeper.wire.message import Response
from slotkeeper.wire.server import Server
from wait_until import until

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4000


def respond(exchange: Exchange) -> None:
    exchange.respond(Response(200, b"ok"))


def hold(exchange: Exchange) -> None:
    """Leave the request in progress."""


@asynccontextmanager
async def listening(limits: Limits, handler: object = respond) -> AsyncIterator[Server]:
    server = Server(handler, limits)  # type: ignore[arg-type]  # one of the two above
    await server.listen("127.0.0.1", 0)
    try:
        async with asyncio.timeout(10):
            yield server
    finally:
        await server.close()


class Clients:
    """Connections to a server, from any address of the loopback interface."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        assert server._server
        self.port: int = server._server.sockets[0].getsockname()[1]
        self._server = server
        self._stack = stack

    async def connect(self, host: str = "127.0.0.1", sent: bytes = b"") -> RawClient:
        """Connect from `host`, send bytes, and wait until they have arrived."""
        listener = self._server.listener

        def state() -> tuple[int, int, int]:
            connections = listener.connections
            closed = sum(connections.closed.values())
            return len(connections), closed, listener.budget.buffered

        before = state()
        streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        client = await self._stack.enter_async_context(RawClient(*streams, self.port))
        await until(lambda: state() != before)
        if sent:
            before = state()
            await client.send(sent)
            await until(lambda: state() != before)
        return client


@asynccontextmanager
async def clients_of(
    limits: Limits, handler: object = respond
) -> AsyncIterator[tuple[Server, Clients]]:
    async with listening(limits, handler) as server, AsyncExitStack() as stack:
        yield server, Clients(server, stack)


async def works(client: RawClient) -> bool:
    if client.writer.is_closing():
        return False
    try:
        return (await client.request(get("/"))).status == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


async def ends_in_a_reset(client: RawClient) -> bool:
    try:
        while await client.reader.read(1_000_000):
            pass
    except ConnectionResetError:
        return True
    return False


async def test_a_new_connection_displaces_the_one_that_has_waited_longest() -> None:
    async with clients_of(Limits(max_connections=2)) as (server, clients):
        first, second = await clients.connect(), await clients.connect()
        assert await works(first)  # it has waited less long than the second one
        third = await clients.connect()

        assert await works(third)
        assert not await works(second)
        assert await works(first)
        assert server.listener.connections.closed[Closed.DISPLACED] == 1


async def test_a_client_with_many_connections_displaces_its_own() -> None:
    async with clients_of(Limits(max_connections=5)) as (server, clients):
        stranger = await clients.connect("127.0.0.2")
        for _ in range(20):
            await clients.connect("127.0.0.3", sent=HALF_HEAD)

        assert len(server.listener.connections) == 5
        assert await works(stranger)
        late = await clients.connect("127.0.0.4")
        assert await works(late)


async def test_a_request_in_progress_is_never_displaced() -> None:
    async with clients_of(Limits(max_connections=2), hold) as (server, clients):
        for _ in range(2):
            await clients.connect(sent=post("/"))
        rejected = await clients.connect()

        assert await rejected.at_end()
        assert server.listener.connections.closed[Closed.CONNECTION_LIMIT] == 1
        assert len(server.listener.connections) == 2


async def test_an_address_has_a_limit_of_its_own() -> None:
    limits = Limits(max_connections=10, max_connections_per_address=2)
    async with clients_of(limits, hold) as (server, clients):
        for _ in range(2):
            await clients.connect("127.0.0.2", sent=post("/"))
        rejected = await clients.connect("127.0.0.2")
        assert await rejected.at_end()
        assert server.listener.connections.closed[Closed.ADDRESS_LIMIT] == 1

        await clients.connect("127.0.0.3", sent=post("/"))
        assert len(server.listener.connections) == 3


async def test_unfinished_heads_occupy_a_quarter_of_the_memory_at_most() -> None:
    async with clients_of(Limits(max_buffered=400_000)) as (server, clients):
        budget = server.listener.budget
        stranger = await clients.connect("127.0.0.2", sent=HALF_HEAD[:100])
        for _ in range(100):
            await clients.connect("127.0.0.3", sent=HALF_HEAD)
            assert budget.unauthenticated <= 100_000

        assert server.listener.connections.closed[Closed.BUFFER_LIMIT] > 50
        response = await stranger.request(b"\r\n\r\n")
        assert response.status == 200


async def test_incomplete_bodies_of_one_client_do_not_keep_out_those_of_another() -> None:
    body = post("/", b"x" * 80_000)
    async with clients_of(Limits(max_buffered=400_000), hold) as (server, clients):
        for _ in range(4):
            await clients.connect("127.0.0.3", sent=body[:-10])
        rejected = await clients.connect("127.0.0.3")
        assert (await rejected.request(body[:-10])).status == 503

        await clients.connect("127.0.0.2", sent=body)
        assert server.listener.connections.closed[Closed.BUFFER_LIMIT] == 1
        assert server.listener.budget.buffered <= 400_000


async def test_responses_that_are_not_read_count_and_end_in_a_reset() -> None:
    def respond_at_length(exchange: Exchange) -> None:
        exchange.respond(Response(200, b"x" * 1_000_000))

    limits = Limits(write_timeout=0.05)
    async with clients_of(limits, respond_at_length) as (server, clients):
        client = await clients.connect(sent=get("/") * 60)
        transport = client.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # a read transport too
        listener = server.listener
        await until(lambda: not listener.connections)

        assert listener.budget.buffered == 0
        transport.resume_reading()  # type: ignore[attr-defined]
        assert await ends_in_a_reset(client)


async def test_a_client_that_does_not_read_gets_no_further_response() -> None:
    responses = 0

    def respond_at_length(exchange: Exchange) -> None:
        nonlocal responses
        responses += 1
        exchange.respond(Response(200, b"x" * 1_000_000))

    async with clients_of(Limits(), respond_at_length) as (server, clients):
        client = await clients.connect()
        transport = client.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(get("/") * 60)
        await until(lambda: server.listener.budget.unauthenticated > 0)
        assert responses < 40
        transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(60):
            assert (await client.response()).status == 200


async def test_the_metrics_port_accepts_no_body() -> None:
    async with clients_of(metrics_port_limits()) as (server, clients):
        for framing in ("Content-Length: 1", "Transfer-Encoding: chunked\r\n\r\n1\r\nx"):
            client = await clients.connect()
            response = await client.request(get("/", framing, method="POST"))
            assert (response.status, response.error_code) == (413, "body_too_large")
        assert await works(await clients.connect())
        assert server.listener.budget.buffered <= 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:9::2", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_of_one_ipv6_network_are_one_client(host: str, network: str) -> None:
    assert network_of(host) == network
