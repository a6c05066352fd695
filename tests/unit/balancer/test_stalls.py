"""Health checks and ejection of replicas that send no bytes though they have requests."""

from dataclasses import replace

import pytest

from balancer_harness import FAST_TIMEOUTS, Balancer, run_balancer
from fake_llama import Call, FakeLlama, echo, never_respond, stream_two_events
from raw_http import post
from stepped_loop import SteppedLoop
from wait_until import until

REQUEST = post("/completion")
SHORT_STALL = replace(FAST_TIMEOUTS, response=0.03, stall=0.02, stall_check=0.002)
WEDGED = replace(FAST_TIMEOUTS, response=0.3, stall=1, stall_check=0.1, wedged=5, unresponsive=5)
LONG_STALL = replace(FAST_TIMEOUTS, response=5, stall=4, stall_check=0.1)


def stall_ejections(balancer: Balancer) -> float:
    return balancer.metric("replica_ejections_total", reason="stalled")


async def test_a_stalled_replica_is_ejected_until_healthy_and_its_requests_continue() -> None:
    async with (
        FakeLlama(2, stream_two_events) as slow,
        FakeLlama(1) as good,
        run_balancer(slow, timeouts=SHORT_STALL) as balancer,
        await balancer.start_request(REQUEST) as client,
    ):
        slow.state_scripts["/health"] = never_respond
        await until(lambda: stall_ejections(balancer) == 1)
        balancer.proxy.replicas.set_targets({slow.name: True, good.name: True})
        await until(lambda: balancer.dispatcher.has_replica)
        assert (await balancer.request(REQUEST)).status == 200
        assert (len(slow.calls), len(good.calls)) == (1, 1)

        await slow.proceed(0)
        assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        del slow.state_scripts["/health"]
        await until(lambda: balancer.dispatcher.total_slots == 3)
        assert stall_ejections(balancer) == 1


async def test_a_silent_replica_that_is_healthy_is_not_ejected() -> None:
    async with (
        FakeLlama(1, stream_two_events) as slow,
        run_balancer(slow, timeouts=replace(SHORT_STALL, response=5)) as balancer,
        await balancer.start_request(REQUEST) as client,
    ):
        polls = slow.health_polls
        await until(lambda: slow.health_polls > polls + 2)
        await slow.proceed(0)

        assert (await client.response()).status == 200
        assert stall_ejections(balancer) == 0


async def test_a_replica_that_progresses_during_its_health_check_is_not_ejected() -> None:
    async def progress_once(call: Call) -> None:
        await call.send_head()
        await call.proceed.wait()
        await call.send_event("late")
        await never_respond(call)

    async with (
        FakeLlama(1, progress_once) as slow,
        run_balancer(slow, timeouts=replace(SHORT_STALL, response=0.3)) as balancer,
        await balancer.start_request(REQUEST),
    ):
        slow.state_scripts["/health"] = never_respond
        polls = slow.health_polls
        await until(lambda: slow.health_polls == polls + 1)
        await slow.proceed(0)
        await until(lambda: slow.health_polls == polls + 2)
        assert stall_ejections(balancer) == 0

        await until(lambda: stall_ejections(balancer) == 1)


async def test_the_health_of_an_idle_replica_is_not_requested(clock: SteppedLoop) -> None:
    async with FakeLlama(1) as llama, run_balancer(llama, timeouts=LONG_STALL) as balancer:
        await balancer.request(REQUEST)
        polls = llama.health_polls
        await clock.advance(10)

        assert llama.health_polls == polls


async def test_after_a_health_check_the_next_one_follows_only_after_another_stall(
    clock: SteppedLoop,
) -> None:
    async with (
        FakeLlama(1, never_respond) as slow,
        run_balancer(slow, timeouts=LONG_STALL) as balancer,
        await balancer.start_request(REQUEST),
    ):
        polls = slow.health_polls
        await clock.advance(3)
        assert slow.health_polls == polls
        await clock.advance(1.5)
        await until(lambda: slow.health_polls == polls + 1)

        await clock.advance(3)
        assert slow.health_polls == polls + 1
        await clock.advance(1.5)
        await until(lambda: slow.health_polls == polls + 2)


async def test_a_replica_that_completes_other_requests_is_not_stalled(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(2, never_respond) as llama,
        run_balancer(llama, timeouts=LONG_STALL) as balancer,
        await balancer.start_request(REQUEST),
    ):
        polls = llama.health_polls
        await clock.advance(3)
        llama.script = echo
        await balancer.request(REQUEST)
        await clock.advance(3)
        assert llama.health_polls == polls

        await clock.advance(1.5)
        await until(lambda: llama.health_polls > polls)


async def test_the_health_of_a_leaving_replica_is_not_requested(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(1, never_respond) as llama,
        run_balancer(llama, timeouts=LONG_STALL) as balancer,
        await balancer.start_request(REQUEST),
    ):
        balancer.proxy.replicas.set_targets({llama.name: False}, [llama.name])
        polls = llama.health_polls
        await clock.advance(10)

        assert llama.health_polls == polls


async def test_a_replica_whose_slots_hang_is_wedged_though_healthy(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(1, never_respond) as llama,
        run_balancer(llama, timeouts=WEDGED) as balancer,
        await balancer.start_request(REQUEST) as client,
    ):
        llama.state_scripts["/slots"] = never_respond
        await clock.advance(4.5)
        assert balancer.metric("replica_ejections_total", reason="wedged") == 0
        assert (await balancer.admin_json("/autoscaling"))["unresponsive"] == []

        await clock.advance(2.5)
        response = await client.response()
        assert (response.status, response.error_code) == (504, "replica_unresponsive")
        assert balancer.metric("replica_ejections_total", reason="wedged") == 1
        assert (await balancer.admin_json("/autoscaling"))["unresponsive"] == [llama.name]

        del llama.state_scripts["/slots"]
        await clock.advance(2)
        await until(lambda: balancer.dispatcher.has_replica)
        assert (await balancer.admin_json("/autoscaling"))["unresponsive"] == []


async def test_a_long_batch_in_which_slots_hang_at_times_is_not_wedged(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(1, never_respond) as llama,
        run_balancer(llama, timeouts=WEDGED) as balancer,
        await balancer.start_request(REQUEST),
    ):
        for _ in range(3):
            llama.state_scripts["/slots"] = never_respond
            await clock.advance(3)
            del llama.state_scripts["/slots"]
            polls = llama.slots_polls
            await clock.advance(1.6)
            assert llama.slots_polls > polls

        assert balancer.metric("replica_ejections_total", reason="wedged") == 0


async def test_a_health_check_that_is_late_once_fails_no_request_of_a_long_batch(
    clock: SteppedLoop,
) -> None:
    timeouts = replace(WEDGED, wedged=60, unresponsive=3)
    async with (
        FakeLlama(1, never_respond) as llama,
        run_balancer(llama, timeouts=timeouts) as balancer,
        await balancer.start_request(REQUEST) as client,
    ):
        llama.state_scripts["/slots"] = never_respond
        await clock.advance(4)
        llama.state_scripts["/health"] = never_respond
        await clock.advance(1.7)
        await until(lambda: stall_ejections(balancer) == 1)
        del llama.state_scripts["/health"]
        await clock.advance(5)
        assert len(balancer.proxy.active) == 1

        llama.state_scripts["/health"] = never_respond
        await clock.advance(4)
        assert (await client.response()).error_code == "replica_unresponsive"


@pytest.mark.parametrize("ready", [True, False])
async def test_what_waits_for_its_first_byte_fails_without_a_sign_of_life(
    clock: SteppedLoop, ready: bool
) -> None:
    """As with a stopped process, which the kubelet soon reports as not ready."""

    async def stream_or_wait(call: Call) -> None:
        if call.body == b"stream":
            await stream_two_events(call)
        else:
            await never_respond(call)

    async with (
        FakeLlama(2, stream_or_wait) as llama,
        run_balancer(llama, timeouts=WEDGED) as balancer,
        await balancer.start_request(post("/completion", b"stream")) as streaming,
        await balancer.start_request(REQUEST) as waiting,
    ):
        await streaming.reader.readuntil(b"first")
        llama.state_scripts.update({"/health": never_respond, "/slots": never_respond})
        if not ready:
            balancer.proxy.set_replicas({llama.name: False})
        await clock.advance(4.5)
        assert len(balancer.proxy.active) == 2

        await clock.advance(1)
        response = await waiting.response()
        assert (response.status, response.error_code) == (504, "replica_unresponsive")
        assert len(balancer.proxy.active) == 1
        assert len(llama.calls) == 2


async def test_a_request_that_wedges_replicas_is_rejected_after_two(clock: SteppedLoop) -> None:
    statuses = []
    async with (
        FakeLlama(1, never_respond) as one,
        FakeLlama(1, never_respond) as two,
        FakeLlama(1, never_respond) as three,
        run_balancer(one, two, three, timeouts=replace(WEDGED, unresponsive=2)) as balancer,
    ):
        for replica in (one, two, three):
            replica.state_scripts["/health"] = never_respond
        for _ in range(3):
            client = await balancer.connect()
            await client.send(REQUEST)
            await clock.advance(3)
            statuses.append((await client.response()).status)

    assert statuses == [504, 504, 422]
    assert sum(len(each.calls) for each in (one, two, three)) == 2


async def test_identical_requests_on_one_replica_that_hangs_count_once(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(2, never_respond) as hanging,
        run_balancer(hanging, timeouts=replace(WEDGED, unresponsive=2)) as balancer,
        await balancer.start_request(REQUEST) as one,
        await balancer.start_request(REQUEST) as two,
        FakeLlama(2) as good,
    ):
        hanging.state_scripts["/health"] = never_respond
        await clock.advance(3)
        assert [(await each.response()).status for each in (one, two)] == [504, 504]
        balancer.proxy.set_replicas({hanging.name: True, good.name: True})
        await until(lambda: balancer.dispatcher.has_replica)

        assert (await balancer.request(REQUEST)).status == 200
