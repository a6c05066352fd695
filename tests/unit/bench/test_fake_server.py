"""The benchmark depends on the fake: it must count slots as llama-server does."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from typing_extensions import override

from bench.balancer.client import Client, ConnectionPool, PendingResponse
from bench.balancer.fake_server import MARK, Fakes
from bench.balancer.jobs import Job, request
from wait_until import until

LONG = Job(service_us=60_000_000)


class FakeReplica:
    """One fake replica and the connections to it."""

    def __init__(self, fakes: Fakes, port: int) -> None:
        self.fakes = fakes
        self.port = port
        self.clients: list[Client] = []

    async def send(self, job: Job) -> tuple[Client, PendingResponse]:
        client, response = await ConnectionPool(self.port).acquire(), PendingResponse()
        client.send(request(job), response)
        self.clients.append(client)
        return client, response

    async def complete(self, job: Job) -> dict[str, int]:
        _, response = await self.send(job)
        status, body = await response.complete()
        assert status == 200
        return dict(json.loads(body))


@pytest.fixture
async def one_slot() -> AsyncIterator[FakeReplica]:
    fakes = Fakes()
    [port] = await fakes.serve(1, slots=1, step_us=1000, cache=2, miss_us=1000)
    replica = FakeReplica(fakes, port)
    async with asyncio.timeout(10):
        yield replica
    for client in replica.clients:
        client.abort()
    await fakes.serve(0, slots=1)


async def test_requests_with_a_free_slot_are_not_overcommitted(one_slot: FakeReplica) -> None:
    await one_slot.complete(Job())
    await one_slot.complete(Job())

    stats = await one_slot.fakes.stats()

    assert (stats["overcommitted"], stats["started"], stats["max_concurrent"]) == (0, 2, 1)


async def test_a_request_without_a_free_slot_is_counted_and_deferred(one_slot: FakeReplica) -> None:
    client, _ = await one_slot.send(LONG)
    await until(lambda: one_slot.fakes.busy == 1)
    _, second = await one_slot.send(Job())
    await until(lambda: one_slot.fakes.counters.overcommitted == 1)

    client.abort()

    status, _ = await second.complete()
    stats = await one_slot.fakes.stats()
    assert (status, stats["max_concurrent"]) == (200, 1)


async def test_a_slot_is_released_after_a_client_disconnect(one_slot: FakeReplica) -> None:
    client, _ = await one_slot.send(LONG)
    await until(lambda: one_slot.fakes.busy == 1)

    client.abort()
    await until(lambda: one_slot.fakes.busy == 0)

    assert len(one_slot.fakes.counters.released) == 1


async def test_the_least_recently_used_prompt_is_evicted_first(one_slot: FakeReplica) -> None:
    hits = [
        (await one_slot.complete(Job(session=session)))["hit"] for session in (1, 2, 1, 3, 1, 2)
    ]

    assert hits == [False, False, True, False, True, False]


async def test_a_loading_replica_responds_with_503(one_slot: FakeReplica) -> None:
    await one_slot.fakes.loading(0, True)

    _, response = await one_slot.send(Job())

    assert (await response.complete())[0] == 503


async def test_each_token_of_a_stream_contains_its_sending_time(one_slot: FakeReplica) -> None:
    class RecordingResponse(PendingResponse):
        data = b""

        @override
        def on_data(self, data: bytes, now: int) -> None:
            self.data += data
            super().on_data(data, now)

    client, response = await ConnectionPool(one_slot.port).acquire(), RecordingResponse()
    one_slot.clients.append(client)

    client.send(request(Job(tokens=3, interval_us=1)), response)
    await response.complete()

    times = [int(part[:19]) for part in response.data.split(MARK)[1:]]
    assert len(times) == 3
    assert times == sorted(times)
