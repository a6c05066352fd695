"""Invalid and incorrect reports of /slots."""

import json
from dataclasses import replace

import pytest

from balancer_harness import FAST_TIMEOUTS, run_balancer
from fake_llama import Call, FakeLlama, Script, echo, never_respond, send_garbage, stream_two_events
from raw_http import get, post
from wait_until import until

REQUEST = post("/completion")


async def send_html(call: Call) -> None:
    page = b"<html>It works!</html>"
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))


def respond(tree: object, status: str = "200 OK") -> Script:
    async def script(call: Call) -> None:
        await call.send_json(tree, status)

    return script


IDLE = {"id": 0, "is_processing": False}
BUSY = {"id": 0, "is_processing": True}
TOO_MANY_BUSY = respond([{**BUSY, "id": number} for number in range(9)])
UNUSABLE = {
    "HTML": send_html,
    "not HTTP": send_garbage,
    "no response": never_respond,
    "an error": respond({"error": {"message": "no"}}, "500 Internal Server Error"),
    "an error that looks like slots": respond([IDLE], "500 Internal Server Error"),
    "404, though it was there": respond({}, "404 Not Found"),
    "no list": respond({"slots": []}),
    "no slots": respond([]),
    "one slot twice": respond([IDLE, IDLE]),
    "no state": respond([{"id": 0}]),
}
INCORRECT = {**UNUSABLE, "more busy slots than it has": TOO_MANY_BUSY}


@pytest.mark.parametrize("report", INCORRECT.values(), ids=INCORRECT)
async def test_an_invalid_slots_report_frees_no_slot(report: Script) -> None:
    timeouts = replace(FAST_TIMEOUTS, response=0.02)
    async with (
        FakeLlama(1, stream_two_events) as bad,
        FakeLlama(1) as good,
        run_balancer(bad, timeouts=timeouts) as balancer,
    ):
        bad.frees_slots.clear()
        bad.state_scripts["/slots"] = report
        client = await balancer.start_request(REQUEST)
        await bad.wait_calls(1)
        client.reset()
        polls = bad.slots_polls
        await until(lambda: bad.slots_polls > polls + 2)
        assert balancer.dispatcher.busy_slots == 1

        balancer.proxy.replicas.set_targets({bad.name: True, good.name: True})
        await until(lambda: balancer.dispatcher.total_slots == 2)
        for _ in range(3):
            assert (await balancer.request(REQUEST)).status == 200
        assert (len(bad.calls), bad.overcommitted, good.overcommitted) == (1, 0, 0)
        bad.frees_slots.set()


@pytest.mark.parametrize("report", INCORRECT.values(), ids=INCORRECT)
async def test_a_slot_is_freed_by_timeout_whatever_slots_reports(report: Script) -> None:
    timeouts = replace(FAST_TIMEOUTS, response=0.02, slot_release=0.05)
    async with (
        FakeLlama(1, stream_two_events) as bad,
        run_balancer(bad, timeouts=timeouts) as balancer,
    ):
        bad.state_scripts["/slots"] = report
        client = await balancer.start_request(REQUEST)
        await bad.wait_calls(1)
        client.reset()

        await balancer.wait_idle()
        assert balancer.metric("slot_release_timeouts_total") == 1
        bad.script = echo
        assert (await balancer.request(REQUEST)).status == 200
        assert bad.overcommitted == 0


async def test_too_low_a_count_frees_only_slots_of_aborted_requests() -> None:
    async with FakeLlama(3, stream_two_events) as bad, run_balancer(bad) as balancer:
        bad.frees_slots.clear()
        clients = [await balancer.start_request(REQUEST) for _ in range(3)]
        await bad.wait_calls(3)
        bad.state_scripts["/slots"] = respond([{**IDLE, "id": number} for number in range(3)])
        clients[0].reset()
        await until(lambda: balancer.dispatcher.busy_slots == 2)
        for _ in range(3):
            await balancer.start_request(REQUEST)
        await bad.wait_calls(4)
        (upstream,) = balancer.proxy.replicas._upstreams.values()
        await until(lambda: upstream.polling is None)

        counts = (bad.overcommitted, len(bad.calls), balancer.dispatcher.queued)
        assert counts == (1, 4, 2)
        bad.frees_slots.set()


async def test_slots_may_have_any_ids() -> None:
    async def report(call: Call) -> None:
        await call.send_json(
            [{"id": 7 * n - 9, "is_processing": n < llama.busy} for n in range(llama.slots)]
        )

    async with FakeLlama(2, stream_two_events) as llama:
        llama.state_scripts["/slots"] = report
        async with run_balancer(llama) as balancer, await balancer.start_request(REQUEST) as client:
            other = await balancer.start_request(REQUEST)
            await llama.wait_calls(2)
            other.reset()
            await until(lambda: balancer.metric("slot_release_duration_seconds_count") == 1)
            assert balancer.dispatcher.busy_slots == 1

            await llama.proceed(0)
            assert (await client.response()).status == 200
        assert llama.overcommitted == 0


@pytest.mark.parametrize("context", [-1, 0, True, None, "many", 1.5, [4096], {}])
async def test_an_invalid_context_size_is_not_reported(context: object) -> None:
    async with FakeLlama(1) as llama:
        llama.state_scripts["/slots"] = respond([{**IDLE, "n_ctx": context}])
        async with run_balancer(llama) as balancer:
            props = json.loads((await balancer.request(get("/props"))).body)

            assert "n_ctx" not in props["default_generation_settings"]
            assert (await balancer.request(REQUEST)).status == 200


@pytest.mark.parametrize("report", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_replica_without_a_valid_slots_report_does_not_join(report: Script) -> None:
    timeouts = replace(FAST_TIMEOUTS, response=0.02)
    async with (
        FakeLlama(2) as bad,
        FakeLlama(1) as good,
        run_balancer(good, timeouts=timeouts) as balancer,
    ):
        bad.state_scripts["/slots"] = report
        balancer.proxy.replicas.set_targets({bad.name: True, good.name: True})
        await until(lambda: bad.slots_polls > 2)
        assert (await balancer.request(REQUEST)).status == 200
        assert balancer.dispatcher.total_slots == 1

        del bad.state_scripts["/slots"]
        await until(lambda: balancer.dispatcher.total_slots == 3)
