import asyncio

from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import post
from wait_until import until


async def test_a_draining_balancer_ends_what_it_has_and_takes_nothing_new() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        running = await made.start(post("/completion", b"1"))
        waiting = await made.start(post("/completion", b"2"))
        draining = asyncio.ensure_future(made.proxy.drain(10))
        await until(lambda: made.proxy.draining)
        made.clients.drain()

        refused = await made.ask(post("/completion"))
        assert (refused.status, refused.error_code) == (503, "shutting_down")
        assert refused.headers["connection"] == "close"

        for number, client in enumerate((running, waiting)):
            calls = await llama.called(number + 1)
            calls[number].go.set()
            response = await client.response()
            assert response.body == b"data: first\n\ndata: last\n\n"
            await client.close()
        assert await draining == 0


async def test_a_drain_has_an_end() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")),
    ):
        assert await made.proxy.drain(0.01) == 1
