import json

import pytest

from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import post
from slotkeeper.scheduling import AffinityLimits
from wait_until import until

SYSTEM = "You are helpful. " * 100


def chat(*texts: str) -> bytes:
    return json.dumps({"messages": [SYSTEM, *texts], "stream": True}).encode()


def ask(*texts: str, path: str = "/v1/chat/completions") -> bytes:
    return post(path, chat(*texts))


async def test_a_conversation_stays_with_its_replica() -> None:
    async with FakeLlama(2) as first, FakeLlama(2) as second, balancer(first, second) as made:
        texts = []
        for number in range(5):
            texts.append(f"{number}" * 1000)
            await made.ask(ask(*texts))

        assert sorted([len(first.calls), len(second.calls)]) == [0, 5]
        assert [line["prefix_hit"] for line in made.lines()] == [False, True, True, True, True]
        assert made.metric("prefix_cache_hits_total") == 4
        assert made.metric("prefix_cache_misses_total") == 1


async def test_a_conversation_waits_for_its_replica_while_others_go_on() -> None:
    async with (
        FakeLlama(1, when_told) as first,
        FakeLlama(1, when_told) as second,
        balancer(first, second) as made,
        await made.start(ask("warm")),
        await made.start(ask("warm", "again")) as waiting,
    ):
        assert (made.dispatcher.busy_slots, made.dispatcher.queued) == (1, 1)
        [(warm, call)] = [(llama, llama.calls[0]) for llama in (first, second) if llama.calls]
        async with await made.start(post("/completion")):
            assert made.dispatcher.busy_slots == 2

        call.go.set()
        (await warm.called(2))[1].go.set()
        assert (await waiting.response()).status == 200


async def test_a_conversation_does_not_wait_for_ever_beside_a_free_slot() -> None:
    async with (
        FakeLlama(1, when_told) as first,
        FakeLlama(1, when_told) as second,
        balancer(first, second, affinity=AffinityLimits(max_affinity_wait=0.02)) as made,
        await made.start(ask("warm")),
        await made.start(ask("warm", "again")) as waiting,
    ):
        await until(lambda: made.dispatcher.busy_slots == 2)
        for llama in (first, second):
            (await llama.called(1))[0].go.set()

        response = await waiting.response()
        assert float(response.headers["x-slotkeeper-wait-seconds"]) >= 0.02


async def test_without_affinity_prompts_are_not_looked_at() -> None:
    async with (
        FakeLlama(2) as first,
        FakeLlama(2) as second,
        balancer(first, second, affinity=None) as made,
    ):
        for _ in range(4):
            await made.ask(ask("same"))

        assert (len(first.calls), len(second.calls)) == (2, 2)
        assert {line["prefix_hit"] for line in made.lines()} == {None}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/tokenize"])
async def test_what_keeps_no_prompt_is_neither_hit_nor_miss(path: str) -> None:
    async with FakeLlama(2) as llama, balancer(llama) as made:
        for _ in range(2):
            await made.ask(ask("same", path=path))

        assert {line["prefix_hit"] for line in made.lines()} == {None}
        assert made.metric("prefix_cache_misses_total") == 0


async def test_a_replica_that_was_set_aside_is_taken_to_know_nothing() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        await made.ask(ask("same"))
        await llama.stop()
        async with await made.start(ask("same")) as client:
            await llama.start()
            assert (await client.response()).status == 200

        assert [line["prefix_hit"] for line in made.lines()] == [False, False]
