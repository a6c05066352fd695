import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from balancer_harness import FAST_PROMPT_TIMINGS, run_balancer
from fake_llama import Call, FakeLlama
from prompt_slots import FakeAgent, PromptSlots, chat, chat_body
from prompt_stack import run_stack
from raw_http import post
from wait_until import until


async def test_a_new_replica_restores_the_longest_prefix_of_a_request(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello", "x" * 2000)
        await stack.replace()
        await stack.balancer.request(chat("hello", "x" * 2000, "and more"))

        line = stack.balancer.access_log()[-1]
        assert stack.second_slots.actions == [("restore", 0)]
        assert line["restored_tokens"] > 700
        assert line["cached_tokens"] > 700
        assert line["restore_seconds"] > 0
        assert stack.balancer.metric("prompt_restores_total") == 1
        assert (
            stack.balancer.metric("prompt_cached_tokens_total", place="file")
            == (line["cached_tokens"])
        )
        page = (await stack.balancer.admin_json("/debug/queue"))["promptFiles"]
        assert page["restoredTokensLastHour"] == line["cached_tokens"]
        assert page["reason"] == "Active"
        report = (await stack.balancer.admin_json("/autoscaling"))["promptCache"]
        assert report["reason"] == "Active"
        assert report["files"] == 1
        assert report["restoredTokensLastHour"] == line["cached_tokens"]


async def test_a_replica_knows_the_first_file_in_a_folder_that_others_share(
    tmp_path: Path,
) -> None:
    async with run_stack(tmp_path) as stack:
        both = {stack.first.name: True, stack.second.name: True}
        stack.balancer.proxy.set_replicas(both)
        await stack.joined(stack.second)
        for _ in range(2):
            await stack.balancer.request(chat("hello"))
        records = stack.agents[0].records
        for llama in (stack.first, stack.second):
            await until(lambda: records and stack.files_of(llama) == set(records))  # noqa: B023


@pytest.mark.parametrize("saved_before", [True, False])
async def test_a_replica_restores_what_another_one_saves_at_its_end(
    tmp_path: Path, saved_before: bool
) -> None:
    async with run_stack(tmp_path) as stack:
        balancer = stack.balancer
        if saved_before:
            await stack.save("before", "x" * 8000)
        balancer.proxy.set_replicas({stack.first.name: True, stack.second.name: False})
        await balancer.request(chat("hello", "y" * 8000))
        balancer.proxy.set_replicas({stack.first.name: True, stack.second.name: True})
        await stack.joined(stack.second)
        balancer.terminate(stack.first, stack.second)
        await stack.agents[0].done.wait()
        await until(lambda: stack.files_of(stack.second) == set(stack.agents[0].records))
        await balancer.request(chat("hello", "y" * 8000))

        assert stack.second_slots.actions == [("restore", 0)]


async def test_a_prompt_that_the_replica_has_in_its_memory_is_not_restored(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.balancer.request(chat("hello", "again"))

        assert [action for action, _ in stack.first_slots.actions] == ["save"]
        assert stack.balancer.access_log()[-1]["restored_tokens"] is None


async def test_a_prompt_is_restored_though_no_endpoint_showed_that_its_replica_was_restarted(
    tmp_path: Path,
) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello", "x" * 2000)
        await stack.save("other", "y" * 2000)
        stack.first_slots.restart()
        await stack.balancer.request(chat("third"))
        # /slots is read after each request.
        index = stack.balancer.proxy.dispatcher.affinity_scheduler.prefix_index
        await until(lambda: not index.prompt_counts)

        await stack.balancer.request(chat("hello", "x" * 2000, "and more"))

        assert ("restore", 1) in stack.first_slots.actions
        assert stack.balancer.access_log()[-1]["restored_tokens"] > 700


async def test_without_affinity_prompts_are_restored_too(tmp_path: Path) -> None:
    async with run_stack(tmp_path, affinity=None) as stack:
        await stack.save("hello")
        await stack.replace()
        await stack.balancer.request(chat("hello"))

        assert stack.second_slots.actions == [("restore", 0)]
        assert stack.balancer.access_log()[-1]["prefix_hit"] is None


async def test_a_file_of_another_build_is_not_restored(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        stack.second_slots.build = "b11669-def"
        await stack.replace()
        await stack.balancer.request(chat("hello"))

        assert stack.second_slots.actions == []


async def test_a_new_leader_knows_the_files(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        stack.balancer.proxy.become_standby(None)
        stack.balancer.proxy.set_replicas({stack.second.name: True})
        stack.balancer.proxy.become_leader()
        await stack.joined(stack.second)
        await stack.balancer.request(chat("hello"))

        assert stack.second_slots.actions == [("restore", 0)]


async def test_a_file_that_cannot_be_restored_is_deleted(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        stack.second_slots.failing.add("restore")
        response = await stack.balancer.request(chat("hello"))

        assert response.status == 200
        assert stack.failures("failed") == 1
        assert not stack.agents[0].records
        assert not stack.agents[0].file_names()


async def test_a_file_that_is_gone_delays_one_request_only(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        stack.agents[0].records.clear()
        for _ in range(2):
            assert (await stack.balancer.request(chat("hello"))).status == 200

        assert stack.failures("gone") == 1


async def test_restored_prompts_that_are_computed_again_end_restoring(tmp_path: Path) -> None:
    async with run_stack(tmp_path, slots=8) as stack:
        # Of several lengths, so that the slot of each is known.
        texts = [letter * (8000 + 100 * number) for number, letter in enumerate("abcd")]
        for text in texts:
            await stack.save(text)
        stack.second_slots.honors_restores = False
        await stack.replace()
        for text in texts:
            await stack.balancer.request(chat(text))

        assert len(stack.second_slots.actions) == 3
        assert stack.failures("not_honored") == 3
        page = (await stack.balancer.admin_json("/debug/queue"))["promptFiles"]
        assert page["reason"] == "NotHonored"


@pytest.mark.parametrize("field", ['"cache_prompt": false', '"id_slot": 1', r'"id\u005fslot":0'])
async def test_nothing_is_restored_for_a_request_that_would_not_use_it(
    tmp_path: Path, field: str
) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        body = chat_body("hello")[:-1] + f", {field}}}".encode()
        assert (await stack.balancer.request(post("/v1/chat/completions", body))).status == 200

        assert stack.second_slots.actions == []


async def test_a_request_for_any_slot_is_restored(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        body = chat_body("hello")[:-1] + b', "id_slot": -1, "cache_prompt": true}'
        await stack.balancer.request(post("/v1/chat/completions", body))

        assert stack.second_slots.actions == [("restore", 0)]


async def test_a_file_that_is_computed_again_twice_is_deleted(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello", "x" * 8000)
        stack.second_slots.honors_restores = False
        for _ in range(2):
            # Each time a new process, without anything in its memory.
            stack.second_slots.slots[0].text = b""
            stack.balancer.proxy.set_replicas({})
            await stack.replace()
            await stack.balancer.request(chat("hello", "x" * 8000))
        await until(lambda: not stack.agents[0].records)

        assert stack.failures("not_honored") == 2


async def test_a_slow_restore_is_given_up(tmp_path: Path) -> None:
    async def wait(_: Call) -> None:
        await asyncio.sleep(3600)

    async with run_stack(tmp_path) as stack:
        stack.first_slots.milliseconds_per_token = 0.01
        await stack.save("hello")
        await stack.replace()
        stack.second_slots.before_action = wait
        response = await stack.balancer.request(chat("hello"))

        assert response.status == 200
        assert stack.failures("timeout") == 1
        assert stack.agents[0].records


async def test_restores_are_not_tried_again_soon_where_llama_server_responds_too_late(
    tmp_path: Path,
) -> None:
    async def hang(_: Call) -> None:
        await asyncio.sleep(3600)

    timings = replace(FAST_PROMPT_TIMINGS, response=0.02)
    async with run_stack(tmp_path, timings=timings) as stack:
        await stack.save("hello", "x" * 2000)
        await stack.replace()
        stack.second.state_scripts["/slots"] = hang
        for _ in range(2):
            # As if nothing of it was in the replica's memory.
            stack.balancer.dispatcher.affinity_scheduler.prefix_index.remove(stack.second.name)
            await stack.balancer.request(chat("hello", "x" * 2000))

        assert stack.failures("timeout") == 1


async def test_a_slot_is_occupied_until_the_restore_of_a_client_that_has_gone_ends(
    tmp_path: Path,
) -> None:
    async with run_stack(tmp_path, slots=1) as stack:
        await stack.save("hello")
        await stack.replace()
        may_end = stack.second_slots.hold_actions()
        client = await stack.balancer.start_request(chat("hello"))
        await until(lambda: "POST /use" in stack.agents[1].requests)
        await client.close()
        await until(lambda: not stack.balancer.proxy.active)
        assert stack.balancer.dispatcher.busy_slots == 1

        may_end.set()
        await stack.balancer.wait_idle()
        assert stack.second_slots.tasks == 0


async def test_a_request_that_is_queued_for_a_new_replica_waits_for_its_files(
    tmp_path: Path,
) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        stack.balancer.proxy.set_replicas({})
        async with await stack.balancer.start_request(chat("hello")) as client:
            stack.balancer.proxy.set_replicas({stack.second.name: True})
            assert (await client.response()).status == 200

        assert stack.second_slots.actions == [("restore", 0)]


async def test_requests_of_a_new_replica_are_restored_one_after_the_other(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        systems = "a" * 2000, "b" * 2500
        for system in systems:
            for _ in range(2):
                await stack.balancer.request(chat(system=system))
        await until(lambda: len(stack.agents[0].records) == 2)
        stack.balancer.proxy.set_replicas({})
        async with (
            await stack.balancer.start_request(chat(system=systems[0])) as first,
            await stack.balancer.start_request(chat(system=systems[1])) as second,
        ):
            stack.balancer.proxy.set_replicas({stack.second.name: True})
            await first.response()
            await second.response()

        assert sorted(stack.second_slots.actions) == [("restore", 0), ("restore", 1)]


async def test_an_agent_that_does_not_respond_delays_the_first_requests_only(
    tmp_path: Path,
) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        agent.silent = True
        timings = replace(FAST_PROMPT_TIMINGS, first_listing=0.01)
        async with run_balancer(llama, prompt_files=agent.port, prompt_timings=timings) as balancer:
            assert (await balancer.request(chat("hello"))).status == 200
            prompts = balancer.proxy.prompts
            assert prompts
            assert prompts.files.plan(llama.name, (1,), 2000, 0) is None


async def test_a_restore_that_another_request_defers_is_given_up(tmp_path: Path) -> None:
    may_end = asyncio.Event()

    async with run_stack(tmp_path) as stack:
        slots = stack.second_slots

        async def use_slot(_: Call) -> None:
            slots.slots[0].busy = True
            await may_end.wait()

        await stack.save("hello")
        await stack.replace()
        slots.before_action = use_slot
        assert (await stack.balancer.request(chat("hello"))).status == 200
        assert stack.failures("slots") == 1
        may_end.set()


async def test_a_request_beside_a_restore_is_sent_at_once(tmp_path: Path) -> None:
    async with run_stack(tmp_path, slots=3) as stack:
        await stack.save("hello")
        await stack.replace()
        may_end = stack.second_slots.hold_actions()
        async with await stack.balancer.start_request(chat("hello")) as delayed:
            assert (await stack.balancer.request(chat("hello"))).status == 200
            may_end.set()
            assert (await delayed.response()).status == 200


async def test_a_request_is_queued_again_if_the_leadership_ended_during_its_restore(
    tmp_path: Path,
) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        may_end = stack.second_slots.hold_actions()
        async with await stack.balancer.start_request(chat("hello")) as client:
            await until(lambda: "POST /use" in stack.agents[1].requests)
            stack.balancer.proxy.become_standby(None)
            may_end.set()
            await until(lambda: stack.balancer.dispatcher.queued == 1)
            stack.balancer.proxy.become_leader()
            assert (await client.response()).status == 200


@pytest.mark.parametrize("lease_expires", [True, False])
async def test_a_request_is_queued_again_if_another_balancer_may_lead_after_its_restore(
    tmp_path: Path, lease_expires: bool
) -> None:
    async with run_stack(tmp_path) as stack:
        await stack.save("hello")
        await stack.replace()
        may_end = stack.second_slots.hold_actions()
        proxy = stack.balancer.proxy
        async with await stack.balancer.start_request(chat("hello")) as client:
            await until(lambda: "POST /use" in stack.agents[1].requests)
            if lease_expires:
                proxy.lease_valid_until = proxy.now()
            else:
                proxy.pause(True)
            may_end.set()
            await until(lambda: stack.balancer.dispatcher.queued == 1)
            assert stack.second_slots.tasks == 0

            proxy.lease_valid_until = math.inf
            proxy.pause(False)
            assert (await client.response()).status == 200


async def test_a_request_does_not_wait_for_another_replica_if_a_free_one_can_restore(
    tmp_path: Path,
) -> None:
    may_end = asyncio.Event()

    async def wait(call: Call) -> None:
        if b"long" in call.body:
            await may_end.wait()

    async with run_stack(tmp_path, slots=1) as stack:
        await stack.save("hello")
        balancer = stack.balancer
        balancer.proxy.set_replicas({stack.first.name: True, stack.second.name: True})
        await stack.joined(stack.second)
        stack.first_slots.before_response = wait
        async with await balancer.start_request(chat("hello", "long")) as busy:
            await until(lambda: stack.first_slots.slots[0].busy)
            await balancer.request(chat("hello"))
            assert stack.second_slots.actions == [("restore", 0)]
            may_end.set()
            await busy.response()


@pytest.mark.parametrize("reachable", [True, False])
async def test_without_agents_requests_are_served(tmp_path: Path, reachable: bool) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        if reachable:
            PromptSlots(llama, tmp_path, build="")
        port = agent.port if reachable else 1
        async with run_balancer(llama, prompt_files=port) as balancer:
            for _ in range(2):
                assert (await balancer.request(chat("hello"))).status == 200
            prompts = balancer.proxy.prompts
            assert prompts
            await until(lambda: prompts.files._replicas[llama.name].problem)

            assert prompts.files.report().reason == "Unreachable"


async def test_without_the_flag_there_is_nothing_of_it(tmp_path: Path) -> None:
    async with FakeLlama(1) as llama:
        slots = PromptSlots(llama, tmp_path)
        async with run_balancer(llama) as balancer:
            for _ in range(3):
                await balancer.request(chat("hello"))
            balancer.terminate(llama)
            await balancer.wait_idle()

            assert balancer.proxy.prompts is None
            assert balancer.dispatcher.affinity_scheduler.files is None
            assert slots.actions == []
            assert (await balancer.admin_json("/debug/queue"))["promptFiles"] is None
