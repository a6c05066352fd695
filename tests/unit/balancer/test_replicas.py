import logging
from dataclasses import replace

import pytest

from balancer_harness import FAST_TIMEOUTS, run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import post
from wait_until import until


async def test_a_replica_joins_when_it_has_loaded_with_the_slots_that_it_reports() -> None:
    async with FakeLlama(3) as llama:
        llama.loading = True
        async with run_balancer(llama) as balancer:
            assert not balancer.dispatcher.has_replica

            llama.loading = False
            await until(lambda: balancer.dispatcher.total_slots == 3)


async def test_a_replica_that_is_not_listening_yet_joins_when_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with FakeLlama(1) as llama:
        pass
    async with run_balancer() as balancer:
        balancer.proxy.replicas.set_targets({llama.name: True})
        await until(lambda: f"replica {llama.name} not ready" in caplog.text)
        assert not balancer.dispatcher.has_replica

        async with llama:
            await until(lambda: balancer.dispatcher.has_replica)
    assert f"replica {llama.name} ready: 1 slots, 0 busy" in caplog.text


async def test_with_a_configured_slot_count_slots_is_not_requested() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama, slots=5) as balancer:
        assert balancer.dispatcher.total_slots == 5
        assert llama.slots_polls == 0


async def test_an_ejected_replica_rejoins_when_healthy_with_its_current_slots() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        await llama.stop()
        async with await balancer.start_request(post("/completion")) as client:
            await until(lambda: not balancer.dispatcher.has_replica)
            llama.slots = 2
            await llama.start()

            assert (await client.response()).status == 200
        assert balancer.dispatcher.total_slots == 2


async def test_a_leaving_replica_completes_its_streams_and_gets_no_new_requests() -> None:
    async with (
        FakeLlama(1, stream_two_events) as old,
        FakeLlama(1) as new,
        run_balancer(old) as balancer,
    ):
        async with await balancer.start_request(post("/completion")) as client:
            await old.wait_calls(1)
            balancer.proxy.replicas.set_targets({old.name: False, new.name: True})
            await until(lambda: balancer.dispatcher.has_replica)
            assert (await balancer.request(post("/completion"))).status == 200
            balancer.proxy.replicas.set_targets({new.name: True})

            await old.proceed(0)
            assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        await balancer.wait_idle()
        assert list(balancer.dispatcher.replicas) == [new.name]
        assert (len(old.calls), len(new.calls)) == (1, 1)


async def test_a_replica_that_turns_ready_again_is_used_again() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        balancer.proxy.replicas.set_targets({llama.name: False})
        assert not balancer.dispatcher.has_replica
        balancer.proxy.replicas.set_targets({llama.name: True})

        assert (await balancer.request(post("/completion"))).status == 200


async def test_a_replica_with_an_aborted_request_can_leave() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        client = await balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        balancer.proxy.replicas.set_targets({})
        client.reset()

        await balancer.wait_idle()
        assert balancer.dispatcher.replicas == {}


async def test_a_replica_that_dies_with_an_aborted_request_keeps_no_busy_slot() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        llama.frees_slots.clear()
        client = await balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        client.reset()
        await until(lambda: llama.slots_polls > 2)
        await llama.stop()

        await balancer.wait_idle()
        assert not balancer.dispatcher.has_replica


async def test_a_slot_that_is_never_released_times_out() -> None:
    timeouts = replace(FAST_TIMEOUTS, slot_release=0.02)
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, timeouts=timeouts) as balancer,
    ):
        llama.frees_slots.clear()
        client = await balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        client.reset()

        await balancer.wait_idle()
        assert balancer.metric("slot_release_timeouts_total") == 1
        llama.frees_slots.set()


@pytest.mark.parametrize("status", ["404 Not Found", "501 Not Implemented"])
async def test_without_a_slots_route_a_closed_connection_frees_the_slot(status: str) -> None:
    async def respond(call: Call) -> None:
        await call.send_json({"error": {"message": "off"}}, status)

    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, slots=1) as balancer,
    ):
        llama.state_scripts["/slots"] = respond
        client = await balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        client.reset()

        await balancer.wait_idle()
        assert balancer.metric("slot_release_timeouts_total") == 0


async def test_an_aborted_request_is_distinguished_from_running_ones() -> None:
    async with FakeLlama(3, stream_two_events) as llama, run_balancer(llama) as balancer:
        llama.frees_slots.clear()
        clients = [await balancer.start_request(post("/completion")) for _ in range(3)]
        await llama.wait_calls(3)
        clients[1].reset()
        await until(lambda: llama.slots_polls > 5)
        assert balancer.dispatcher.busy_slots == 3

        for number in (0, 2):
            await llama.proceed(number)
            assert (await clients[number].response()).status == 200
        polls = llama.slots_polls
        await until(lambda: llama.slots_polls > polls + 5)
        assert balancer.dispatcher.busy_slots == 1

        llama.frees_slots.set()
        await balancer.wait_idle()
        assert llama.overcommitted == 0
