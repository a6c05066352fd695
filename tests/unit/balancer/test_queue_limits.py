from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import post
from slotkeeper.scheduling import QueueLimits


async def test_one_request_too_many_gets_429_and_a_retry_time() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=QueueLimits(max_queued=1)) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion")),
    ):
        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert balancer.metric("requests_total", outcome="rejected", code="429") == 1


async def test_a_queue_timeout_is_503_with_a_retry_time() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=QueueLimits(queue_timeout=0.02)) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (503, "queue_timeout")
        assert int(response.headers["retry-after"]) >= 1


async def test_a_cold_start_timeout_is_503_with_a_retry_time() -> None:
    async with run_balancer(queue_limits=QueueLimits(cold_start_timeout=0.02)) as balancer:
        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (503, "cold_start_timeout")
        assert "retry-after" in response.headers


async def test_many_requests_that_time_out_at_once_all_get_responses() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=QueueLimits(queue_timeout=0)) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        clients = [await balancer.connect() for _ in range(5)]
        for client in clients:
            client.writer.write(post("/completion"))
        responses = [await client.response() for client in clients]

    assert [response.error_code for response in responses] == ["queue_timeout"] * 5
