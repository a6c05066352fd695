"""While the last replica goes, what it has ends in peace, and what comes waits for the next one."""

import json

from balancer_harness import balancer
from fake_llama import FakeLlama, answer_at_once, when_told
from raw_http import RawClient, get, post
from wait_until import until


async def test_what_it_has_ends_and_what_comes_is_answered_by_the_next_one() -> None:
    async with (
        FakeLlama(1, when_told) as last,
        FakeLlama(1, answer_at_once) as following,
        balancer(last) as made,
        await made.start(post("/completion")) as before,
    ):
        [running] = await last.called(1)
        made.proxy.set_replicas({last.name: False})
        async with await made.start(post("/completion")) as after:
            made.proxy.set_replicas({last.name: False, following.name: True})

            assert (await after.response()).status == 200
        running.go.set()
        ended = await before.response()

    assert (ended.status, b"last" in ended.body) == (200, True)
    assert (len(last.calls), len(following.calls)) == (1, 1)


async def test_one_that_it_no_longer_takes_is_answered_by_the_next_one() -> None:
    async with FakeLlama(1) as last, FakeLlama(1) as following, balancer(last) as made:
        # Gone already, before its endpoint says so.
        await last.stop()
        async with await made.start(post("/completion")) as client:
            await until(lambda: made.proxy.has_queued)
            made.proxy.set_replicas({following.name: True})

            assert (await client.response()).status == 200


async def test_what_comes_is_demand_at_once_though_the_last_one_has_a_free_slot() -> None:
    async with FakeLlama(2, when_told) as last, balancer(last) as made:
        made.proxy.set_replicas({last.name: False})
        async with (
            await made.start(post("/completion")),
            await RawClient.connect(made.metrics_port) as onlooker,
        ):
            told = json.loads((await onlooker.ask(get("/autoscaling?timeout=30"))).body)

    assert (told["queued"], told["peakDemand"], told["slots"]["total"]) == (1, 1, 0)
