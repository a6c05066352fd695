import json

import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from prompt_slots import chat
from raw_http import post
from slotkeeper.scheduling import AffinityLimits
from wait_until import until


async def test_a_conversation_stays_with_its_replica() -> None:
    async with (
        FakeLlama(2) as first,
        FakeLlama(2) as second,
        run_balancer(first, second) as balancer,
    ):
        texts = []
        for number in range(5):
            texts.append(f"{number}" * 1000)
            await balancer.request(chat(*texts))

        assert sorted([len(first.calls), len(second.calls)]) == [0, 5]
        assert [line["prefix_hit"] for line in balancer.access_log()] == [
            False,
            True,
            True,
            True,
            True,
        ]
        assert balancer.metric("prefix_cache_hits_total") == 4
        assert balancer.metric("prefix_cache_misses_total") == 1


async def test_a_conversation_with_other_tools_is_another_prompt() -> None:
    async with FakeLlama(2) as llama, run_balancer(llama) as balancer:
        for text in ("x" * 2000, "y" * 200_000):
            for tools in ([1], [1], [2]):
                body = {"messages": [text], "tools": tools}
                await balancer.request(post("/v1/chat/completions", json.dumps(body).encode()))

        hits = [line["prefix_hit"] for line in balancer.access_log()]
        assert hits == [False, True, False, False, True, False]


async def test_a_conversation_is_queued_for_its_replica_while_others_are_dispatched() -> None:
    async with (
        FakeLlama(1, stream_two_events) as first,
        FakeLlama(1, stream_two_events) as second,
        run_balancer(first, second) as balancer,
        await balancer.start_request(chat("hello")),
        await balancer.start_request(chat("hello", "again")) as queued,
    ):
        assert (balancer.dispatcher.busy_slots, balancer.dispatcher.queued) == (1, 1)
        [(replica, call)] = [(llama, llama.calls[0]) for llama in (first, second) if llama.calls]
        async with await balancer.start_request(post("/completion")):
            assert balancer.dispatcher.busy_slots == 2

        call.proceed.set()
        await replica.proceed(1)
        assert (await queued.response()).status == 200


async def test_a_conversation_gets_any_free_slot_after_the_maximum_affinity_wait() -> None:
    async with (
        FakeLlama(1, stream_two_events) as first,
        FakeLlama(1, stream_two_events) as second,
        run_balancer(first, second, affinity=AffinityLimits(max_affinity_wait=0.02)) as balancer,
        await balancer.start_request(chat("hello")),
        await balancer.start_request(chat("hello", "again")) as queued,
    ):
        await until(lambda: balancer.dispatcher.busy_slots == 2)
        for llama in (first, second):
            await llama.proceed(0)

        response = await queued.response()
        assert float(response.headers["x-slotkeeper-wait-seconds"]) >= 0.02


async def test_without_affinity_prompts_are_not_hashed() -> None:
    async with (
        FakeLlama(2) as first,
        FakeLlama(2) as second,
        run_balancer(first, second, affinity=None) as balancer,
    ):
        for _ in range(4):
            await balancer.request(chat("same"))

        assert (len(first.calls), len(second.calls)) == (2, 2)
        assert {line["prefix_hit"] for line in balancer.access_log()} == {None}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/tokenize"])
async def test_a_route_without_prefix_cache_counts_as_neither_hit_nor_miss(path: str) -> None:
    async with FakeLlama(2) as llama, run_balancer(llama) as balancer:
        for _ in range(2):
            await balancer.request(chat("same", path=path))

        assert {line["prefix_hit"] for line in balancer.access_log()} == {None}
        assert balancer.metric("prefix_cache_misses_total") == 0


async def test_an_ejected_replica_counts_as_having_nothing_cached() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        await balancer.request(chat("same"))
        await llama.stop()
        async with await balancer.start_request(chat("same")) as client:
            await llama.start()
            assert (await client.response()).status == 200

        assert [line["prefix_hit"] for line in balancer.access_log()] == [False, False]
