from balancer_harness import run_balancer
from fake_llama import FakeLlama, echo, stream_two_events
from raw_http import post


async def test_a_replica_has_as_many_requests_as_slots_and_no_more() -> None:
    async with (
        FakeLlama(3, stream_two_events) as first,
        FakeLlama(2, stream_two_events) as second,
        run_balancer(first, second) as balancer,
    ):
        clients = [await balancer.start_request(post("/completion")) for _ in range(9)]
        await first.wait_calls(3)
        await second.wait_calls(2)
        assert (balancer.dispatcher.busy_slots, balancer.dispatcher.queued) == (5, 4)

        for llama in (first, second):
            llama.script = echo
            for call in llama.calls:
                call.proceed.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()
        await balancer.wait_idle()
        assert (first.overcommitted, second.overcommitted) == (0, 0)
        assert (first.max_busy, second.max_busy) == (3, 2)


async def test_requests_are_dispatched_in_order_of_arrival() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        names = [f"{number}".encode() for number in range(8)]
        clients = [await balancer.start_request(post("/completion", name)) for name in names]
        for number in range(len(names)):
            calls = await llama.wait_calls(number + 1)
            calls[number].proceed.set()
        for client in clients:
            await client.response()
            await client.close()

    assert [call.body for call in llama.calls] == names


async def test_requests_are_queued_for_a_first_replica() -> None:
    async with (
        FakeLlama() as llama,
        run_balancer() as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        balancer.proxy.replicas.set_targets({llama.name: True})

        assert (await client.response()).status == 200
