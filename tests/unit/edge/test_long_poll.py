"""Long polls of /autoscaling at zero replicas return at the first request."""

import asyncio
import json
from typing import Any

import pytest

from balancer_harness import Balancer, run_balancer
from election_harness import run_group
from fake_llama import FakeLlama, stream_two_events
from raw_http import RawClient, get, post
from wait_until import until


async def poll(balancer: Balancer, query: str) -> RawClient:
    """A client that has requested the demand report."""
    client = await RawClient.connect(balancer.metrics_port)
    await client.send(get(f"/autoscaling{query}"))
    return client


async def report(client: RawClient) -> Any:
    """The report that it gets, long before its timeout."""
    async with client, asyncio.timeout(5):
        return json.loads((await client.response()).body)


async def test_the_first_request_ends_the_poll_at_once() -> None:
    async with run_balancer() as balancer:
        client = await poll(balancer, "?timeout=30")
        await until(lambda: len(balancer.admin._long_poll) == 1)

        async with await balancer.start_request(post("/completion")):
            assert (await report(client))["queued"] == 1


async def test_without_a_request_the_poll_ends_at_its_timeout() -> None:
    async with run_balancer() as balancer:
        assert (await report(await poll(balancer, "?timeout=0.02")))["demand"] == 0
        assert len(balancer.admin._long_poll) == 0


@pytest.mark.parametrize(
    "query", ["", "?timeout=0", "?timeout=-1", "?timeout=nan", "?timeout=long", "?timeout="]
)
async def test_without_a_valid_timeout_the_response_is_immediate(query: str) -> None:
    async with run_balancer() as balancer:
        assert (await report(await poll(balancer, query)))["demand"] == 0


async def test_with_demand_or_replicas_the_response_is_immediate() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer() as balancer:
        async with await balancer.start_request(post("/completion")):
            assert (await report(await poll(balancer, "?timeout=30")))["queued"] == 1
        balancer.proxy.set_replicas({llama.name: True})
        await until(lambda: balancer.dispatcher.has_replica)
        assert (await report(await poll(balancer, "?timeout=30")))["replicas"] == 1


async def test_a_standby_responds_at_once() -> None:
    async with run_group() as group:
        await group.add_leader("a")
        standby = await group.add_standby("b")

        assert not (await report(await poll(standby.balancer, "?scope=local&timeout=30")))["leader"]


async def test_a_client_that_disconnects_is_dropped() -> None:
    async with run_balancer() as balancer:
        client = await poll(balancer, "?scope=local&timeout=30")
        await until(lambda: len(balancer.admin._long_poll) == 1)

        await client.close()

        await until(lambda: len(balancer.admin._long_poll) == 0)
        async with await balancer.start_request(post("/completion")):
            assert balancer.proxy.has_queued


async def test_other_paths_are_not_held() -> None:
    async with run_balancer() as balancer, await RawClient.connect(balancer.metrics_port) as client:
        response = await client.request(get("/healthz?timeout=30"))

        assert response.status == 200
