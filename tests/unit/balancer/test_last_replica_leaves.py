"""While the last replica leaves, its requests complete, and new ones are queued for the next."""

from balancer_harness import run_balancer
from fake_llama import FakeLlama, echo, stream_two_events
from raw_http import post
from wait_until import until


async def test_running_requests_complete_and_new_ones_go_to_the_next_replica() -> None:
    async with (
        FakeLlama(1, stream_two_events) as last,
        FakeLlama(1, echo) as following,
        run_balancer(last) as balancer,
        await balancer.start_request(post("/completion")) as before,
    ):
        await last.wait_calls(1)
        balancer.proxy.set_replicas({last.name: False})
        async with await balancer.start_request(post("/completion")) as after:
            balancer.proxy.set_replicas({last.name: False, following.name: True})

            assert (await after.response()).status == 200
        await last.proceed(0)
        response = await before.response()

    assert (response.status, b"last" in response.body) == (200, True)
    assert (len(last.calls), len(following.calls)) == (1, 1)


async def test_a_request_that_it_refuses_goes_to_the_next_replica() -> None:
    async with FakeLlama(1) as last, FakeLlama(1) as following, run_balancer(last) as balancer:
        # It has stopped before its EndpointSlice shows so.
        await last.stop()
        async with await balancer.start_request(post("/completion")) as client:
            await until(lambda: balancer.proxy.has_queued)
            balancer.proxy.set_replicas({following.name: True})

            assert (await client.response()).status == 200


async def test_a_new_request_is_demand_at_once_though_the_last_replica_has_a_free_slot() -> None:
    async with FakeLlama(2, stream_two_events) as last, run_balancer(last) as balancer:
        balancer.proxy.set_replicas({last.name: False})
        async with await balancer.start_request(post("/completion")):
            report = await balancer.admin_json("/autoscaling?timeout=30")

    assert (report["queued"], report["peakDemand"], report["slots"]["total"]) == (1, 1, 0)
