"""Attacks on a real balancer process, and what it occupies then."""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress

import pytest

from balancer_process import Process, run_process
from raw_http import RawClient, get
from slotkeeper.api import balancer_memory
from slotkeeper.api.balancer_memory import MIB

CONNECTIONS = 1000
BUFFERED = 32 * MIB
LIMITS = [
    *("--replica", "127.0.0.1:1", "--slots", "1", "--no-access-log"),
    *("--shutdown-delay", "0", "--drain-timeout", "0"),
    *("--max-connections", str(CONNECTIONS), "--max-buffered-mib", "32"),
    *("--max-queued-mib", "32", "--max-body-mib", "32"),
]

POST = b"POST /completion HTTP/1.1\r\nHost: a\r\n"
LONG_HEADERS = b"".join(b"A%d: %s\r\n" % (number, b"x" * 8000) for number in range(4))
SHORT_HEADERS = b"".join(b"A%d: b\r\n" % number for number in range(94))
TINY_CHUNKS = b"2\r\nxx\r\n" * 30_000


def heads() -> Iterator[bytes]:
    for number in range(4000):
        yield POST + (LONG_HEADERS if number % 2 else SHORT_HEADERS)


def bodies() -> Iterator[bytes]:
    for _ in range(100):
        yield POST + b"Content-Length: 1000001\r\n\r\n" + b"x" * 1_000_000
    for _ in range(100):
        yield POST + b"Transfer-Encoding: chunked\r\n\r\n" + TINY_CHUNKS


def pipelined() -> Iterator[bytes]:
    for _ in range(100):
        yield (POST + b"Content-Length: 0\r\n\r\n") * 1000


def unread_responses() -> Iterator[bytes]:
    for _ in range(1000):
        yield get("/metrics") * 60


@pytest.fixture
def attack() -> Iterator[Callable[[int, Iterable[bytes]], None]]:
    with ExitStack() as stack:

        def send(port: int, requests: Iterable[bytes]) -> None:
            """Send each of `requests` on a connection of its own, and leave it open."""
            for number, request in enumerate(requests):
                client = stack.enter_context(socket.socket())
                client.settimeout(5)
                with suppress(OSError):
                    client.bind((f"127.0.1.{1 + number % 3}", 0))
                    client.connect(("127.0.0.1", port))
                    client.sendall(request)

        yield send


async def serves_a_stranger(balancer: Process) -> bool:
    async with await RawClient.connect(balancer.port) as client:
        return (await client.request(get("/v1/models"))).status == 200


@pytest.mark.parametrize("requests", [heads, bodies, pipelined, unread_responses])
async def test_no_attack_occupies_more_than_the_sum_allows(
    attack: Callable[[int, Iterable[bytes]], None], requests: Callable[[], Iterable[bytes]]
) -> None:
    async with run_process(*LIMITS) as balancer:
        assert await serves_a_stranger(balancer)
        before = balancer.peak_memory
        attack(balancer.port, requests())
        assert await serves_a_stranger(balancer)
        occupied = balancer.peak_memory
        balancer.process.terminate()

    requests_and_connections = (
        balancer_memory.limit(BUFFERED, CONNECTIONS) - balancer_memory.PROCESS
    )
    assert occupied - before < requests_and_connections
    # What the process itself occupies also fits.
    assert before < balancer_memory.PROCESS


async def test_the_metrics_port_buffers_no_body(
    attack: Callable[[int, Iterable[bytes]], None],
) -> None:
    body = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n"
    async with run_process(*LIMITS) as balancer:
        assert await serves_a_stranger(balancer)
        before = balancer.peak_memory
        attack(balancer.metrics_port, [body + b"x" * 29_000_000] * 3)
        async with await RawClient.connect(balancer.metrics_port) as client:
            assert (await client.request(get("/healthz"))).status == 200
        occupied = balancer.peak_memory
        balancer.process.terminate()

    assert occupied - before < 16 * MIB
