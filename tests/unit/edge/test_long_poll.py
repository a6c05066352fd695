"""Long polls of /autoscaling at zero replicas return at the first request."""

import asyncio
import json
from typing import Any

import pytest

from balancer_harness import Balancer, balancer
from election_harness import family
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from wait_until import until


async def poll(made: Balancer, query: str) -> RawClient:
    """A client that has requested the demand report."""
    client = await RawClient.connect(made.metrics_port)
    await client.send(get(f"/autoscaling{query}"))
    return client


async def report(client: RawClient) -> Any:
    """The report that it gets, long before its timeout."""
    async with client, asyncio.timeout(5):
        return json.loads((await client.response()).body)


async def test_the_first_request_ends_the_poll_at_once() -> None:
    async with balancer() as made:
        client = await poll(made, "?timeout=30")
        await until(lambda: len(made.admin._long_poll) == 1)

        async with await made.start(post("/completion")):
            assert (await report(client))["queued"] == 1


async def test_without_a_request_the_poll_ends_at_its_timeout() -> None:
    async with balancer() as made:
        assert (await report(await poll(made, "?timeout=0.02")))["demand"] == 0
        assert len(made.admin._long_poll) == 0


@pytest.mark.parametrize(
    "query", ["", "?timeout=0", "?timeout=-1", "?timeout=nan", "?timeout=long", "?timeout="]
)
async def test_without_a_valid_timeout_the_response_is_immediate(query: str) -> None:
    async with balancer() as made:
        assert (await report(await poll(made, query)))["demand"] == 0


async def test_with_demand_or_replicas_the_response_is_immediate() -> None:
    async with FakeLlama(1, when_told) as llama, balancer() as made:
        async with await made.start(post("/completion")):
            assert (await report(await poll(made, "?timeout=30")))["queued"] == 1
        made.proxy.set_replicas({llama.name: True})
        await until(lambda: made.dispatcher.has_replica)
        assert (await report(await poll(made, "?timeout=30")))["replicas"] == 1


async def test_a_standby_responds_at_once() -> None:
    async with family() as balancers:
        await balancers.add_leader("a")
        standby = await balancers.add_standby("b")

        assert not (await report(await poll(standby.made, "?scope=local&timeout=30")))["leader"]


async def test_a_client_that_disconnects_is_dropped() -> None:
    async with balancer() as made:
        client = await poll(made, "?scope=local&timeout=30")
        await until(lambda: len(made.admin._long_poll) == 1)

        await client.close()

        await until(lambda: len(made.admin._long_poll) == 0)
        async with await made.start(post("/completion")):
            assert made.proxy.has_queued


async def test_other_paths_are_not_held() -> None:
    async with balancer() as made, await RawClient.connect(made.metrics_port) as client:
        response = await client.ask(get("/healthz?timeout=30"))

        assert response.status == 200
