"""New replicas compute beginnings of prompts before they get requests."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from typing_extensions import override

from balancer_harness import FAST_TIMEOUTS
from fake_llama import Call, never_respond
from primed_stack import CHAT, LONG_SYSTEM, SYSTEM, TEXT, chat, run_primed
from raw_http import post
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.beginnings import RenderedPrompt
from slotkeeper.balancer.priming.llama import PrimedLlama
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling import AffinityLimits, QueueLimits
from wait_until import until

NO_CACHE = AffinityLimits(cached_prompts=0)


async def test_a_new_replica_has_computed_the_beginnings_before_it_gets_requests() -> None:
    async with run_primed(CHAT, TEXT) as stack:
        await stack.join()

        # The template merges the system prompt into the first message of the user.
        assert stack.slots.texts() == [f"\x01<user>{SYSTEM.strip()}\n\n", "\x01" + TEXT.source]
        # The first one is the most recently used.
        assert [slot.used for slot in stack.slots.slots] == sorted(
            (slot.used for slot in stack.slots.slots), reverse=True
        )
        balancer = stack.balancer
        balancer.proxy.set_replicas({stack.new.name: True})
        await balancer.request(chat("Hello?"))
        assert balancer.access_log()[-1]["cached_tokens"] > len(SYSTEM)
        assert balancer.metric("primed_prompts_total") == 2
        tokens = balancer.metric("primed_tokens_total")
        assert len(SYSTEM) + len(TEXT.source) < tokens < len(SYSTEM) + len(TEXT.source) + 30
        assert balancer.metric("priming_seconds_total") > 0
        assert [stack.aborted(reason) for reason in ("request", "timeout", "failed")] == [0, 0, 0]
        report = await stack.report()
        assert report == {
            "reason": "Active",
            "message": "new replicas compute the prompts before they get requests",
            "prompts": 2,
            "learned": 0,
            "tokensLastHour": tokens,
            "replicas": 0,
        }


async def test_nothing_is_computed_twice_where_llama_server_cannot_go_back() -> None:
    async with run_primed(CHAT, TEXT) as stack:
        stack.slots.goes_back = False
        await stack.join()
        assert stack.slots.texts() == [f"\x01<user>{SYSTEM.strip()}\n\n", "\x01" + TEXT.source]
        # But for the first part of the first one, which shows that.
        tokens = sum(len(text) for text in stack.slots.texts())
        assert sum(computed for _, computed in stack.slots.computed) == tokens + 64


async def test_a_replica_that_has_served_before_is_not_primed_again() -> None:
    async with run_primed(CHAT) as stack:
        stack.slots.slots[1].tokens = (1, 2, 3)
        await stack.join()
        assert stack.slots.computed == []


async def test_without_a_cache_in_memory_only_slots_are_filled() -> None:
    async with run_primed(CHAT, TEXT, slots=1, affinity=NO_CACHE) as stack:
        await stack.join()
        assert stack.slots.texts() == [f"\x01<user>{SYSTEM.strip()}\n\n"]
    async with run_primed(CHAT, TEXT, slots=1) as stack:
        await stack.join()
        assert stack.slots.texts() == ["\x01" + TEXT.source]
        assert stack.balancer.metric("primed_prompts_total") == 2


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_queued_request_gets_a_slot_at_once(slots: int) -> None:
    async with run_primed(CHAT, slots=slots) as stack:
        stack.slots.hold()
        stack.start()
        await stack.new.wait_calls(5)  # of the template, the tokenizer, and the first chunk
        assert not stack.is_ready
        report = await stack.report()
        assert (report["replicas"], report["message"]) == (
            1,
            "a new replica computes the prompts now; requests that are queued meanwhile end that",
        )
        stack.old.script = never_respond
        busy = await stack.balancer.start_request(post("/completion", b'{"prompt": "x"}'))
        stack.slots.before_response = None

        await stack.balancer.request(chat("Hello?"))

        assert stack.balancer.access_log()[-1]["replica"] == stack.new.name
        assert stack.new.overcommitted == 0
        assert stack.aborted("request") == 1
        assert stack.balancer.metric("primed_prompts_total") == 0
        assert (await stack.report())["reason"] == "Active"
        await busy.close()


async def test_a_request_that_begins_so_waits_for_the_part_that_is_computed() -> None:
    long = json.dumps({"messages": [{"role": "system", "content": LONG_SYSTEM}]})
    async with run_primed(SpecPrompt(PromptKind.CHAT, long), TEXT) as stack:
        may_compute = asyncio.Event()

        async def wait(call: Call) -> None:
            if len(call.body) > 500:  # not the first part, of 64 tokens
                await may_compute.wait()

        stack.slots.before_response = wait
        stack.start()
        await stack.new.wait_calls(7)
        stack.old.script = never_respond
        busy = await stack.balancer.start_request(post("/completion", b'{"prompt": "x"}'))
        client = await stack.balancer.start_request(chat("Hello?", LONG_SYSTEM))
        assert not stack.is_ready

        may_compute.set()
        assert (await client.response()).status == 200

        assert stack.balancer.access_log()[-1]["cached_tokens"] >= 128
        assert stack.aborted("request") == 1
        await busy.close()


async def test_a_replica_for_which_a_request_is_queued_is_not_primed() -> None:
    async with run_primed(CHAT) as stack:
        stack.balancer.proxy.set_replicas({})
        client = await stack.balancer.start_request(chat("Hello?"))
        stack.balancer.proxy.set_replicas({stack.new.name: True})
        assert (await client.response()).status == 200
        assert len(stack.slots.computed) == 1
        assert stack.aborted("request") == 1


async def test_without_a_queue_the_only_replica_is_not_primed() -> None:
    async with run_primed(CHAT, queue_limits=QueueLimits(max_queued=0)) as stack:
        stack.balancer.proxy.set_replicas({})
        stack.balancer.proxy.set_replicas({stack.new.name: True})
        await until(lambda: stack.is_ready)
        assert stack.slots.computed == []
        stack.leave()
        await until(lambda: stack.balancer.dispatcher.has_replica)
        await stack.join()
        assert stack.slots.computed


async def test_a_replica_that_hangs_gets_requests_after_the_limit() -> None:
    timeouts = replace(FAST_TIMEOUTS, slot_release=0.05)
    options = PrimingOptions(0.05)
    async with run_primed(CHAT, TEXT, options=options, timeouts=timeouts) as stack:
        stack.slots.hold()
        await stack.join()
        assert stack.aborted("timeout") == 1
        report = await stack.report()
        assert report["reason"] == "PrimingFailed"
        assert report["message"] == "no prompt was computed in 0.05 s: prompts[0] takes longer"
        # The slot that was computing is free again, too.
        await until(lambda: stack.balancer.dispatcher.busy_slots == 0)


@pytest.mark.parametrize("path", ["/apply-template", "/tokenize", "/completion"])
async def test_a_beginning_that_is_rejected_is_reported_and_the_others_are_computed(
    path: str,
) -> None:
    async with run_primed(CHAT, TEXT) as stack:
        stack.slots.rejecting = {path}
        await stack.join()
        report = await stack.report()
        assert report["reason"] == "PromptInvalid"
        assert f"prompts[0]: {path} returned 400" in report["message"]
        assert stack.balancer.metric("primed_prompts_total") == (path == "/apply-template")


@pytest.mark.parametrize("path", ["/apply-template", "/tokenize"])
async def test_an_internal_error_of_a_prompt_is_its_own(path: str) -> None:
    async with run_primed(CHAT, TEXT) as stack:
        stack.slots.failing = {path}
        await stack.join()
        report = await stack.report()
        assert report["reason"] == "PromptInvalid"
        assert f"prompts[0]: {path} returned 500" in report["message"]
        assert stack.aborted("failed") == 0
        assert stack.balancer.metric("primed_prompts_total") == (path == "/apply-template")


async def test_a_beginning_that_does_not_fit_into_a_slot_is_reported() -> None:
    async with run_primed(TEXT) as stack:
        stack.slots.context = 100
        await stack.join()
        message = f"prompts[0]: {len(TEXT.source) + 1} tokens, and a slot has 100"
        assert (await stack.report())["message"] == message


async def test_a_beginning_with_which_llama_server_ends_twice_is_not_tried_again() -> None:
    async with run_primed(CHAT, TEXT) as stack:

        async def crash(call: Call) -> None:
            if b'"id_slot": 0' in call.body:
                call.reset()
                await asyncio.Event().wait()

        stack.slots.before_response = crash
        for count in (1, 2):
            await stack.join()
            assert stack.aborted("failed") == count
            report = await stack.report()
            assert report["reason"] == "PrimingFailed"
            assert ("is not computed any more" in report["message"]) == (count == 2)
            stack.leave()

        stack.slots.before_response = None
        await stack.join()
        assert stack.slots.texts() == ["\x01" + TEXT.source, ""]
        report = await stack.report()
        assert (report["reason"], report["message"]) == (
            "PrimingFailed",
            "prompts[0] is not computed any more: llama-server ended with it twice",
        )


async def test_a_replica_that_reports_no_slots_gets_requests_after_the_limit() -> None:
    async with run_primed(CHAT, options=PrimingOptions(0.05)) as stack:
        report, calls = stack.new.state_scripts["/slots"], 0

        async def hang(call: Call) -> None:
            nonlocal calls
            calls += 1
            # The first is of the balancer, which waits until the replica is ready.
            await (report if calls == 1 else never_respond)(call)

        stack.new.state_scripts["/slots"] = hang
        await stack.join()
        message = "llama-server did not respond to /slots in 0.05 s"
        assert (await stack.report())["message"] == message


async def test_a_replica_that_has_ended_before_is_not_the_fault_of_a_prompt() -> None:
    async with run_primed(CHAT) as stack:
        priming = stack.balancer.proxy.priming
        assert priming
        for _ in range(3):
            priming._llama = lambda _host, _port: Refusing()
            await stack.join()
            stack.leave()
        assert "any more" not in (await stack.report())["message"]


class Refusing(PrimedLlama):
    """A llama-server that ends after it has reported its slots."""

    def __init__(self) -> None:
        super().__init__("", 0)

    @override
    async def slots(self) -> tuple[Slot, ...]:
        return (Slot(0, is_processing=False, n_ctx=4096),)

    @override
    async def tokens(self, prompt: RenderedPrompt) -> list[int]:
        raise ConnectionRefusedError


async def test_a_template_with_which_llama_server_ends_twice_is_not_tried_again() -> None:
    async with run_primed(CHAT, TEXT) as stack:
        stack.slots.ending = "messages"
        for count in (1, 2):
            await stack.join()
            assert stack.aborted("failed") == count
            stack.leave()
        assert "prompts[0] is not computed any more" in (await stack.report())["message"]

        await stack.join()
        assert stack.slots.texts() == ["\x01" + TEXT.source, ""]


async def test_a_replica_with_an_internal_error_gets_requests() -> None:
    async with run_primed(CHAT) as stack:
        stack.slots.failing = {"/completion"}
        await stack.join()
        assert stack.aborted("failed") == 1
        assert (await stack.report())["message"] == "prompts[0]: /completion returned 500"

        # Neither is its prompt to blame.
        stack.slots.failing = set()
        stack.leave()
        await stack.join()
        assert (await stack.report())["reason"] == "Active"
        assert stack.balancer.metric("primed_prompts_total") == 1


async def test_what_requests_share_is_learned_and_computed() -> None:
    options = PrimingOptions(20, learned=True)
    async with run_primed(options=options) as stack:
        await stack.join()
        assert stack.slots.computed == []
        balancer = stack.balancer
        balancer.proxy.set_replicas({stack.old.name: True})
        for user in ("Hello?", "Why?"):
            assert (await balancer.request(chat(user, LONG_SYSTEM))).status == 200

        await stack.join()

        assert f"\x01<user>{LONG_SYSTEM.strip()}\n\n" in stack.slots.texts()
        # The prefix is known of it: a request of the same beginning is a hit there.
        balancer.proxy.set_replicas({stack.new.name: True})
        await balancer.request(chat("When?", LONG_SYSTEM))
        line = balancer.access_log()[-1]
        assert (line["replica"], line["prefix_hit"]) == (stack.new.name, True)
        assert line["cached_tokens"] > len(LONG_SYSTEM)


async def test_nothing_of_a_learned_request_is_shown() -> None:
    options = PrimingOptions(20, learned=True)
    async with run_primed(options=options) as stack:
        balancer = stack.balancer
        for user in ("Hello?", "Why?"):
            await balancer.request(chat(user, LONG_SYSTEM))
        await stack.join()
        assert stack.slots.computed
        assert (await stack.report())["learned"] == 1
        pages = [
            (await balancer.admin_request(path)).body.decode()
            for path in ("/metrics", "/autoscaling", "/debug/queue")
        ]
        shown = "\n".join([*pages, balancer.log_stream.getvalue()])
        assert "You are helpful" not in shown


async def test_a_learned_beginning_that_is_rejected_is_forgotten() -> None:
    options = PrimingOptions(20, learned=True)
    async with run_primed(options=options) as stack:
        for user in ("Hello?", "Why?"):
            await stack.balancer.request(chat(user, LONG_SYSTEM))
        stack.slots.context = 100
        await stack.join()
        stack.slots.context = 4096
        stack.leave()
        await stack.join()
        assert stack.slots.computed == []
        assert (await stack.report())["reason"] == "Active"


async def accept(call: Call) -> None:
    await call.send_json({"content": "a"})


@pytest.mark.parametrize(
    "prompt",
    [
        lambda text, end: [text + end, "b"],
        lambda text, end: {"prompt_string": text + end, "multimodal_data": []},
        lambda text, end: [[1, 2, 3], text + end],
        lambda text, end: [1, text + end],
    ],
)
async def test_requests_that_have_not_one_text_are_not_learned(
    prompt: Callable[[str, str], object],
) -> None:
    options = PrimingOptions(20, learned=True)
    async with run_primed(options=options) as stack:
        stack.old.script = accept
        balancer = stack.balancer
        for number in range(10):
            for end in ("a", "b", "c"):
                body = {"prompt": prompt(f"{number}{LONG_SYSTEM}", end)}
                sent = post("/v1/completions", json.dumps(body).encode())
                assert (await balancer.request(sent)).status == 200
        for _ in range(2):
            # What is found to be no text is forgotten.
            await stack.join()
            balancer.proxy.set_replicas({stack.old.name: True})
        for user in ("Hello?", "Why?"):
            await balancer.request(chat(user, LONG_SYSTEM))

        await stack.join()

        assert f"\x01<user>{LONG_SYSTEM.strip()}\n\n" in stack.slots.texts()


async def test_a_standby_forgets_what_was_learned() -> None:
    options = PrimingOptions(20, learned=True)
    async with run_primed(options=options) as stack:
        for user in ("Hello?", "Why?"):
            await stack.balancer.request(chat(user, LONG_SYSTEM))
        stack.balancer.proxy.become_standby(None)
        stack.balancer.proxy.become_leader()
        await stack.join()
        assert stack.slots.computed == []


async def test_a_config_map_without_keys_and_invalid_prompts_are_reported() -> None:
    invalid = [
        SpecPrompt(PromptKind.CHAT, source)
        for source in ("no JSON", "[]", '{"messages": []}', '{"messages": ["hello"]}')
    ]
    options = PrimingOptions(20, config_map="beginnings")
    async with run_primed(*invalid, TEXT, options=options) as stack:
        priming = stack.balancer.proxy.priming
        assert priming
        priming.set_mounted({}, "")
        await stack.join()
        report = await stack.report()
        assert (report["reason"], report["prompts"]) == ("PromptInvalid", 1)
        for part in (
            "prompts[0]: it is not JSON",
            'prompts[1]: it is not a chat: it must be an object with "messages"',
            "prompts[3]: each of its messages must be an object with a role",
            "ConfigMap beginnings does not exist, or has no keys",
        ):
            assert part in report["message"]
        assert stack.slots.texts()[0] == "\x01" + TEXT.source


async def test_a_withdrawn_replica_is_primed_no_longer() -> None:
    async with run_primed(CHAT) as stack:
        stack.slots.hold()
        stack.start()
        calls = await stack.new.wait_calls(5)
        stack.leave()
        await calls[-1].disconnected.wait()
        assert not stack.is_ready
