from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import post
from slotkeeper.scheduling import QueueLimits


async def test_one_more_than_may_wait_gets_429_and_a_time_to_come_back() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=QueueLimits(max_queued=1)) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion")),
    ):
        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert made.metric("requests_total", outcome="rejected", code="429") == 1


async def test_who_waits_too_long_gets_503_and_a_time_to_come_back() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=QueueLimits(queue_timeout=0.02)) as made,
        await made.start(post("/completion")),
    ):
        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (503, "queue_timeout")
        assert int(response.headers["retry-after"]) >= 1


async def test_who_waits_too_long_for_a_first_replica_gets_503() -> None:
    async with balancer(bounds=QueueLimits(cold_start_timeout=0.02)) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (503, "cold_start_timeout")
        assert "retry-after" in response.headers


async def test_many_whose_time_is_over_at_once_are_all_told() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=QueueLimits(queue_timeout=0)) as made,
        await made.start(post("/completion")),
    ):
        clients = [await made.client() for _ in range(5)]
        for client in clients:
            client.writer.write(post("/completion"))
        answers = [await client.response() for client in clients]

    assert [answer.error_code for answer in answers] == ["queue_timeout"] * 5
