"""Demand reports over HTTP: anything but a report is an error that the poller handles."""

import asyncio
import gzip
import json
import tracemalloc
from contextlib import suppress
from typing import Self

import pytest

from operator_harness import demand_report
from slotkeeper.api.demand_report import MAX_BYTES
from slotkeeper.reconcile.demand.client import open_client


class BalancerServer:
    """Sends these responses, one for each request; afterwards it closes connections."""

    def __init__(self, *responses: bytes) -> None:
        self._responses = list(responses)
        self.connections = 0
        self.paths: list[bytes] = []
        """Of the requests."""
        self.address = ""
        self._connections = set[asyncio.Task[None]]()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while self._responses:
                head = await reader.readuntil(b"\r\n\r\n")
                self.paths.append(head.split()[1])
                writer.write(self._responses.pop(0))
                await writer.drain()
        writer.close()


def response(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def report(queued: int) -> bytes:
    return json.dumps(demand_report(queued=queued)).encode()


async def test_a_report_is_fetched_and_parsed() -> None:
    async with BalancerServer(response(report(3))) as balancer, open_client() as fetch:
        assert (await fetch(balancer.address, keep_alive=True)).queued == 3


@pytest.mark.parametrize(("keep_alive", "connections"), [(True, 1), (False, 2)])
async def test_a_connection_is_reused_with_keep_alive_only(
    keep_alive: bool, connections: int
) -> None:
    responses = response(report(1)), response(report(2))
    async with BalancerServer(*responses) as balancer, open_client() as fetch:
        queued = [(await fetch(balancer.address, keep_alive=keep_alive)).queued for _ in range(2)]

        assert (queued, balancer.connections) == ([1, 2], connections)


@pytest.mark.parametrize(
    ("keep_alive", "path"),
    [(True, b"/autoscaling?scope=local&timeout=0.75"), (False, b"/autoscaling?scope=local")],
)
async def test_the_balancers_own_report_is_requested_and_with_keep_alive_long_polled(
    keep_alive: bool, path: bytes
) -> None:
    async with BalancerServer(response(report(1))) as balancer, open_client() as fetch:
        await fetch(balancer.address, keep_alive=keep_alive)

        assert balancer.paths == [path]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(response(b"{}", status="503 Service Unavailable"), id="error response"),
        pytest.param(response(b"{", status="200 OK"), id="truncated JSON"),
        pytest.param(response(b"<p>", content_type="text/html"), id="HTML"),
        pytest.param(b"what?\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", id="truncated body"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_anything_but_a_report_is_an_error(raw: bytes) -> None:
    async with BalancerServer(raw) as balancer, open_client() as fetch:
        with pytest.raises((OSError, ValueError)):
            await fetch(balancer.address, keep_alive=True)


def compressed(body: bytes) -> bytes:
    packed = gzip.compress(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    return head.encode() + packed


BOMB_BYTES = 20 * 2**20
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 4 * 2**20


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(compressed(report(1)), id="compressed"),
        pytest.param(ENDLESS, id="endless"),
        pytest.param(response(report(1) + b" " * MAX_BYTES), id="too long"),
        pytest.param(response(b"[" * 100_000), id="deep"),
        pytest.param(response(report(1).replace(b'"queued": 1', b'"queued": 1e400')), id="1e400"),
        pytest.param(response(report(1).replace(b'"queued": 1', b'"queued": Infinity')), id="inf"),
        pytest.param(response(report(10**30)), id="a huge integer"),
    ],
)
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_hostile_report_is_an_error(raw: bytes, keep_alive: bool) -> None:
    async with BalancerServer(raw) as balancer, open_client() as fetch:
        with pytest.raises((OSError, ValueError)):
            await fetch(balancer.address, keep_alive=keep_alive)


async def test_a_compressed_bomb_takes_no_memory() -> None:
    bomb = compressed(report(1) + b" " * BOMB_BYTES)
    async with BalancerServer(bomb) as balancer, open_client() as fetch:
        tracemalloc.start()
        try:
            with pytest.raises((OSError, ValueError)):
                await fetch(balancer.address, keep_alive=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < BOMB_BYTES / 10


async def test_a_redirect_is_not_followed() -> None:
    async with BalancerServer(response(report(1))) as other:
        redirect = response(b"", status=f"302 Found\r\nLocation: http://{other.address}/")
        async with BalancerServer(redirect) as balancer, open_client() as fetch:
            with pytest.raises(OSError, match="302"):
                await fetch(balancer.address, keep_alive=True)

        assert other.connections == 0


async def test_a_refused_connection_is_an_error() -> None:
    async with BalancerServer() as closed:
        pass

    async with open_client() as fetch:
        with pytest.raises(OSError, match="cannot connect to"):
            await fetch(closed.address, keep_alive=True)
