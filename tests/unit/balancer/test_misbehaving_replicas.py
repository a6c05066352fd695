"""A replica that answers garbage, breaks off, stalls or lies costs its own requests only."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from typing_extensions import override

from balancer_harness import QUICK, Balancer, balancer
from fake_llama import Call, FakeLlama, Script, answer_at_once, when_told
from raw_http import get, post
from slotkeeper.backoff import Backoff
from wait_until import until

ASK = post("/completion")
LONG = replace(QUICK, ejection=Backoff(30, 30))
STALL = replace(QUICK, response=0.03, stall=0.02, stall_check=0.002)


class Odd(FakeLlama):
    """A llama-server whose /health and /slots may be scripts too; it counts who asks."""

    def __init__(self, slots: int = 1, script: Script = answer_at_once) -> None:
        super().__init__(slots, script)
        self.says: dict[str, Script] = {}
        self.asked = 0

    @override
    async def _about_itself(self, call: Call) -> None:
        self.asked += call.path == "/health"
        if call.path in self.says:
            self.looks += call.path == "/slots"
            await self.says[call.path](call)
        else:
            await super()._about_itself(call)


async def garbage(call: Call) -> None:
    await call.write(b"\x00\x01garbage\r\n\r\n")


async def garbage_at_last(call: Call) -> None:
    await call.head()
    await call.event("first")
    await call.go.wait()
    await call.write(b"no chunk\r\n")


async def reset_at_last(call: Call) -> None:
    await call.head()
    await call.event("first")
    await call.go.wait()
    call.reset()


async def never(call: Call) -> None:
    await call.gone.wait()


def aside(made: Balancer, reason: str) -> float:
    return made.metric("replica_ejections_total", reason=reason)


async def test_garbage_for_an_answer_sets_its_replica_aside_until_it_is_well() -> None:
    async with Odd(1, garbage) as bad, Odd(1) as good, balancer(bad, good) as made:
        bad.says["/health"] = garbage
        answers = [await made.ask(ASK) for _ in range(4)]

        assert sorted(each.status for each in answers) == [200, 200, 200, 502]
        assert (len(bad.calls), aside(made, "protocol_error")) == (1, 1)

        bad.script = answer_at_once
        del bad.says["/health"]
        await until(lambda: made.dispatcher.total_slots == 2)
        await until(lambda: made.dispatcher.busy_slots == 0)


@pytest.mark.parametrize(
    ("script", "reason"), [(garbage_at_last, "protocol_error"), (reset_at_last, "connection_reset")]
)
async def test_an_answer_that_goes_wrong_is_cut_and_others_go_on(
    script: Script, reason: str
) -> None:
    async with Odd(2, script) as bad, Odd(1, when_told) as good, balancer(bad, good) as made:
        clients = [await made.start(ASK) for _ in range(3)]
        await bad.called(2)
        await good.called(1)
        bad.says["/health"] = never
        bad.calls[0].go.set()
        await until(lambda: aside(made, reason) == 1)
        # The other of its requests runs on, and so does the other replica.
        assert len(made.proxy.active) == 2
        bad.calls[1].go.set()
        good.calls[0].go.set()
        ends = await asyncio.gather(*(each.response() for each in clients), return_exceptions=True)

        kinds = sorted(type(end).__name__ for end in ends)
        assert kinds == ["IncompleteReadError", "IncompleteReadError", "Response"]
        assert aside(made, reason) == 1
        await until(lambda: len(made.proxy.active) == 0)


async def test_a_replica_that_only_says_it_is_well_is_left_alone_for_longer() -> None:
    async with Odd(1, garbage) as bad, balancer(bad, patience=LONG) as made:
        assert (await made.ask(ASK)).status == 502
        await until(lambda: made.dispatcher.has_replica)
        assert (await made.ask(ASK)).status == 502
        asked = bad.asked
        async with await made.start(ASK):
            await asyncio.sleep(0.05)
            assert (made.dispatcher.queued, bad.asked) == (1, asked)
        assert (len(bad.calls), aside(made, "protocol_error")) == (2, 2)


async def test_a_good_answer_makes_up_for_a_failure() -> None:
    async with Odd(1) as llama, balancer(llama, patience=LONG) as made:
        for _ in range(3):
            llama.script = garbage
            assert (await made.ask(ASK)).status == 502
            llama.script = answer_at_once
            assert (await made.ask(ASK)).status == 200

        assert aside(made, "protocol_error") == 3


async def test_one_that_stalls_is_set_aside_until_its_health_answers_and_nothing_is_cut() -> None:
    async with (
        Odd(2, when_told) as slow,
        Odd(1) as good,
        balancer(slow, patience=STALL) as made,
        await made.start(ASK) as client,
    ):
        slow.says["/health"] = never
        await until(lambda: aside(made, "stalled") == 1)
        made.proxy.replicas.set_targets({slow.name: True, good.name: True})
        await until(lambda: made.dispatcher.has_replica)
        assert (await made.ask(ASK)).status == 200
        assert (len(slow.calls), len(good.calls)) == (1, 1)

        slow.calls[0].go.set()
        assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        del slow.says["/health"]
        await until(lambda: made.dispatcher.total_slots == 3)
        assert aside(made, "stalled") == 1


async def test_one_that_says_nothing_and_is_well_is_busy() -> None:
    async with (
        Odd(1, when_told) as slow,
        balancer(slow, patience=replace(STALL, response=5)) as made,
        await made.start(ASK) as client,
    ):
        asked = slow.asked
        await until(lambda: slow.asked > asked + 2)
        slow.calls[0].go.set()

        assert (await client.response()).status == 200
        assert aside(made, "stalled") == 0


async def test_one_that_has_nothing_to_say_is_not_asked() -> None:
    async with Odd(1) as llama, balancer(llama, patience=STALL) as made:
        await made.ask(ASK)
        asked = llama.asked
        await asyncio.sleep(0.08)

        assert llama.asked == asked


async def test_one_that_is_well_is_asked_again_only_after_another_silence() -> None:
    patience = replace(STALL, stall=0.05, response=5)
    async with Odd(1, never) as slow, balancer(slow, patience=patience) as made:
        asked = slow.asked
        async with await made.start(ASK):
            await asyncio.sleep(0.14)

        assert slow.asked - asked <= 2


async def test_one_that_goes_on_while_it_is_asked_is_not_set_aside() -> None:
    async def go_on_once(call: Call) -> None:
        await call.head()
        await call.go.wait()
        await call.event("late")
        await never(call)

    patience = replace(STALL, response=0.3)
    async with (
        Odd(1, go_on_once) as slow,
        balancer(slow, patience=patience) as made,
        await made.start(ASK),
    ):
        slow.says["/health"] = never
        asked = slow.asked
        await until(lambda: slow.asked == asked + 1)
        slow.calls[0].go.set()
        await until(lambda: slow.asked == asked + 2)
        assert aside(made, "stalled") == 0

        await until(lambda: aside(made, "stalled") == 1)


async def test_one_that_answers_others_is_not_silent() -> None:
    # Looked at by hand.
    patience = replace(QUICK, stall=0.001, stall_check=3600)
    async with (
        Odd(2, never) as llama,
        balancer(llama, patience=patience) as made,
        await made.start(ASK),
    ):
        made.proxy.stall_monitor._check()
        await asyncio.sleep(0.002)
        llama.script = answer_at_once
        await made.ask(ASK)
        made.proxy.stall_monitor._check()
        assert not made.proxy.stall_monitor._probes

        await asyncio.sleep(0.002)
        made.proxy.stall_monitor._check()
        assert made.proxy.stall_monitor._probes


async def test_one_that_leaves_is_not_asked() -> None:
    async with Odd(1, never) as llama, balancer(llama, patience=STALL) as made:
        async with await made.start(ASK):
            made.proxy.replicas.set_targets({llama.name: False})
            asked = llama.asked
            await asyncio.sleep(0.06)

        assert llama.asked == asked


async def _html(call: Call) -> None:
    page = b"<html>It works!</html>"
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))


def _tree(tree: object, status: str = "200 OK") -> Callable[[Call], Awaitable[None]]:
    async def say(call: Call) -> None:
        await call.whole(tree, status)

    return say


IDLE = {"id": 0, "is_processing": False}
BUSY = {"id": 0, "is_processing": True}
LIES = {
    "HTML": _html,
    "protocol_error": garbage,
    "nothing at all": never,
    "an error": _tree({"error": {"message": "no"}}, "500 Internal Server Error"),
    "an error that looks like slots": _tree([IDLE], "500 Internal Server Error"),
    "that there is no such page, though there was": _tree({}, "404 Not Found"),
    "no list": _tree({"slots": []}),
    "no slots": _tree([]),
    "one slot twice": _tree([IDLE, IDLE]),
    "no state": _tree([{"id": 0}]),
    "more slots at work than it has": _tree([{**BUSY, "id": number} for number in range(9)]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_slot_is_not_free_by_a_lie(lie: Script) -> None:
    patience = replace(QUICK, response=0.02)
    async with Odd(1, when_told) as liar, Odd(1) as good, balancer(liar, patience=patience) as made:
        liar.lets_go.clear()
        liar.says["/slots"] = lie
        client = await made.start(ASK)
        await liar.called(1)
        client.reset()
        await until(lambda: liar.looks > 3)
        assert made.dispatcher.busy_slots == 1

        made.proxy.replicas.set_targets({liar.name: True, good.name: True})
        await until(lambda: made.dispatcher.total_slots == 2)
        for _ in range(3):
            assert (await made.ask(ASK)).status == 200
        assert (len(liar.calls), liar.over_commits, good.over_commits) == (1, 0, 0)
        liar.lets_go.set()


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_slot_comes_back_in_the_end_whatever_is_said(lie: Script) -> None:
    patience = replace(QUICK, response=0.02, slot_release=0.05)
    async with Odd(1, when_told) as liar, balancer(liar, patience=patience) as made:
        liar.says["/slots"] = lie
        client = await made.start(ASK)
        await liar.called(1)
        client.reset()

        await made.at_rest()
        assert made.metric("slot_release_timeouts_total") == 1
        liar.script = answer_at_once
        assert (await made.ask(ASK)).status == 200
        assert liar.over_commits == 0


async def test_too_low_a_number_frees_no_more_than_the_abandoned_slots() -> None:
    async with Odd(3, when_told) as liar, balancer(liar) as made:
        liar.lets_go.clear()
        clients = [await made.start(ASK) for _ in range(3)]
        await liar.called(3)
        liar.says["/slots"] = _tree([{**IDLE, "id": number} for number in range(3)])
        clients[0].reset()
        await until(lambda: made.dispatcher.busy_slots == 2)
        for _ in range(3):
            await made.start(ASK)
        await liar.called(4)
        await asyncio.sleep(0.02)

        assert (liar.over_commits, len(liar.calls), made.dispatcher.queued) == (1, 4, 2)
        liar.lets_go.set()


async def test_slots_may_have_any_names() -> None:
    async def say(call: Call) -> None:
        await call.whole(
            [{"id": 7 * n - 9, "is_processing": n < llama.busy} for n in range(llama.slots)]
        )

    async with Odd(2, when_told) as llama:
        llama.says["/slots"] = say
        async with balancer(llama) as made, await made.start(ASK) as client:
            (await made.start(ASK)).reset()
            await until(lambda: made.metric("slot_release_duration_seconds_count") == 1)
            assert made.dispatcher.busy_slots == 1

            llama.calls[0].go.set()
            assert (await client.response()).status == 200
        assert llama.over_commits == 0


@pytest.mark.parametrize("context", [-1, 0, True, None, "many", 1.5, [4096], {}])
async def test_a_context_that_is_none_is_not_said_on(context: object) -> None:
    async with Odd(1) as llama:
        llama.says["/slots"] = _tree([{**IDLE, "n_ctx": context}])
        async with balancer(llama) as made:
            props = json.loads((await made.ask(get("/props"))).body)

            assert props["default_generation_settings"] == {}
            assert (await made.ask(ASK)).status == 200


@pytest.mark.parametrize("lie", [each for name, each in LIES.items() if "more" not in name])
async def test_one_that_does_not_say_its_slots_does_not_join_and_others_go_on(lie: Script) -> None:
    patience = replace(QUICK, response=0.02)
    async with Odd(2) as liar, Odd(1) as good, balancer(good, patience=patience) as made:
        liar.says["/slots"] = lie
        made.proxy.replicas.set_targets({liar.name: True, good.name: True})
        await until(lambda: liar.looks > 2)
        assert (await made.ask(ASK)).status == 200
        assert made.dispatcher.total_slots == 1

        del liar.says["/slots"]
        await until(lambda: made.dispatcher.total_slots == 3)
