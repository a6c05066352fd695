"""Whoever asks for the demand of a server without replicas may be told of the first request."""

import asyncio
import json
from typing import Any

import pytest

from balancer_harness import Balancer, balancer
from election_harness import family
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from wait_until import until


async def asks(made: Balancer, query: str) -> RawClient:
    """A client that has asked for the demand."""
    client = await RawClient.connect(made.metrics_port)
    await client.send(get(f"/autoscaling{query}"))
    return client


async def told(client: RawClient) -> Any:
    """What it is told, within the second for which no test holds it."""
    async with client, asyncio.timeout(5):
        return json.loads((await client.response()).body)


async def test_the_first_request_is_told_of_at_once() -> None:
    async with balancer() as made:
        onlooker = await asks(made, "?timeout=30")
        await until(lambda: len(made.admin._long_poll) == 1)

        async with await made.start(post("/completion")):
            assert (await told(onlooker))["queued"] == 1


async def test_without_a_request_it_is_told_so_when_its_time_is_over() -> None:
    async with balancer() as made:
        assert (await told(await asks(made, "?timeout=0.02")))["demand"] == 0
        assert len(made.admin._long_poll) == 0


@pytest.mark.parametrize(
    "query", ["", "?timeout=0", "?timeout=-1", "?timeout=nan", "?timeout=long", "?timeout="]
)
async def test_who_says_no_time_is_told_at_once(query: str) -> None:
    async with balancer() as made:
        assert (await told(await asks(made, query)))["demand"] == 0


async def test_while_there_is_something_to_tell_nobody_is_held() -> None:
    async with FakeLlama(1, when_told) as llama, balancer() as made:
        async with await made.start(post("/completion")):
            assert (await told(await asks(made, "?timeout=30")))["queued"] == 1
        made.proxy.set_replicas({llama.name: True})
        await until(lambda: made.dispatcher.has_replica)
        assert (await told(await asks(made, "?timeout=30")))["replicas"] == 1


async def test_one_that_stands_by_tells_at_once() -> None:
    async with family() as they:
        await they.add_leader("a")
        standby = await they.add_standby("b")

        assert not (await told(await asks(standby.made, "?scope=local&timeout=30")))["leader"]


async def test_one_that_leaves_is_forgotten() -> None:
    async with balancer() as made:
        onlooker = await asks(made, "?scope=local&timeout=30")
        await until(lambda: len(made.admin._long_poll) == 1)

        await onlooker.close()

        await until(lambda: len(made.admin._long_poll) == 0)
        async with await made.start(post("/completion")):
            assert made.proxy.has_queued


async def test_other_pages_hold_nobody() -> None:
    async with balancer() as made, await RawClient.connect(made.metrics_port) as client:
        response = await client.ask(get("/healthz?timeout=30"))

        assert response.status == 200
