"""Ejection of replicas that send malformed responses or break them off."""

import asyncio
from dataclasses import replace

import pytest

from balancer_harness import FAST_TIMEOUTS, Balancer, run_balancer
from fake_llama import Call, FakeLlama, Script, echo, never_respond, send_garbage, stream_two_events
from raw_http import post
from slotkeeper.backoff import Backoff
from stepped_loop import SteppedLoop
from wait_until import until

REQUEST = post("/completion")


async def send_garbage_at_last(call: Call) -> None:
    await call.send_head()
    await call.send_event("first")
    await call.proceed.wait()
    await call.write(b"no chunk\r\n")


async def reset_at_last(call: Call) -> None:
    await call.send_head()
    await call.send_event("first")
    await call.proceed.wait()
    call.reset()


def ejections(balancer: Balancer, reason: str) -> float:
    return balancer.metric("replica_ejections_total", reason=reason)


async def test_a_malformed_response_ejects_its_replica_until_it_is_healthy() -> None:
    async with (
        FakeLlama(1, send_garbage) as bad,
        FakeLlama(1) as good,
        run_balancer(bad, good) as balancer,
    ):
        bad.state_scripts["/health"] = send_garbage
        responses = [await balancer.request(REQUEST) for _ in range(4)]

        assert sorted(response.status for response in responses) == [200, 200, 200, 502]
        assert (len(bad.calls), ejections(balancer, "protocol_error")) == (1, 1)

        bad.script = echo
        del bad.state_scripts["/health"]
        await until(lambda: balancer.dispatcher.total_slots == 2)
        await until(lambda: balancer.dispatcher.busy_slots == 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [(send_garbage_at_last, "protocol_error"), (reset_at_last, "connection_reset")],
)
async def test_a_response_that_fails_is_aborted_and_others_continue(
    script: Script, reason: str
) -> None:
    async with (
        FakeLlama(2, script) as bad,
        FakeLlama(1, stream_two_events) as good,
        run_balancer(bad, good) as balancer,
    ):
        clients = [await balancer.start_request(REQUEST) for _ in range(3)]
        await bad.wait_calls(2)
        await good.wait_calls(1)
        bad.state_scripts["/health"] = never_respond
        await bad.proceed(0)
        await until(lambda: ejections(balancer, reason) == 1)
        # Its other request continues, and so does the other replica.
        assert len(balancer.proxy.active) == 2
        await bad.proceed(1)
        await good.proceed(0)
        results = await asyncio.gather(
            *(client.response() for client in clients), return_exceptions=True
        )

        kinds = sorted(type(result).__name__ for result in results)
        assert kinds == ["IncompleteReadError", "IncompleteReadError", "Response"]
        assert ejections(balancer, reason) == 1
        await until(lambda: len(balancer.proxy.active) == 0)


async def test_a_replica_that_is_healthy_and_fails_again_is_ejected_for_longer(
    clock: SteppedLoop,
) -> None:
    timeouts = replace(FAST_TIMEOUTS, ejection=Backoff(5, 5))
    async with (
        FakeLlama(1, send_garbage) as bad,
        run_balancer(bad, timeouts=timeouts) as balancer,
    ):
        assert (await balancer.request(REQUEST)).status == 502
        await until(lambda: balancer.dispatcher.has_replica)
        assert (await balancer.request(REQUEST)).status == 502
        polls = bad.health_polls
        async with await balancer.start_request(REQUEST):
            await clock.advance(4)
            assert (balancer.dispatcher.queued, bad.health_polls) == (1, polls)
            assert (len(bad.calls), ejections(balancer, "protocol_error")) == (2, 2)

            await clock.advance(1)
            await until(lambda: len(bad.calls) == 3)


async def test_a_complete_response_resets_the_consecutive_failures() -> None:
    timeouts = replace(FAST_TIMEOUTS, ejection=Backoff(30, 30))
    async with FakeLlama(1) as llama, run_balancer(llama, timeouts=timeouts) as balancer:
        for _ in range(3):
            llama.script = send_garbage
            assert (await balancer.request(REQUEST)).status == 502
            llama.script = echo
            assert (await balancer.request(REQUEST)).status == 200

        assert ejections(balancer, "protocol_error") == 3
