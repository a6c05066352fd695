import asyncio

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import post
from wait_until import until


async def test_a_draining_balancer_completes_active_requests_and_rejects_new_ones() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        running = await balancer.start_request(post("/completion", b"1"))
        queued = await balancer.start_request(post("/completion", b"2"))
        draining = asyncio.ensure_future(balancer.proxy.drain(10))
        await until(lambda: balancer.proxy.draining)
        balancer.client_server.drain()

        rejected = await balancer.request(post("/completion"))
        assert (rejected.status, rejected.error_code) == (503, "shutting_down")
        assert rejected.headers["connection"] == "close"

        for number, client in enumerate((running, queued)):
            calls = await llama.wait_calls(number + 1)
            calls[number].proceed.set()
            response = await client.response()
            assert response.body == b"data: first\n\ndata: last\n\n"
            await client.close()
        assert await draining == 0


async def test_a_drain_has_a_timeout() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        assert await balancer.proxy.drain(0.01) == 1
