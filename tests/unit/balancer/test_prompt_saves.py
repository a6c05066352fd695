import asyncio
from dataclasses import replace
from pathlib import Path

from balancer_harness import FAST_PROMPT_TIMINGS, Balancer, run_balancer
from fake_llama import Call, FakeLlama
from prompt_slots import FakeAgent, PromptSlots, chat, chat_body, text_of
from raw_http import post
from slotkeeper.scheduling.prompt_saves import IDLE_SECONDS
from stepped_loop import SteppedLoop
from wait_until import until


async def prompts_known(balancer: Balancer) -> None:
    """Wait until the files of the only replica have been listed."""
    assert balancer.proxy.prompts
    [replica] = balancer.proxy.prompts.files._replicas.values()
    await until(lambda: replica.compatible)


async def test_a_prompt_that_is_sent_twice_is_saved(tmp_path: Path) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_saves_total", reason="repeated"))

            [record] = agent.records.values()
            body = chat_body("hello")
            assert text_of((tmp_path / record["name"]).read_bytes()).startswith(body[:-8])
            assert record["tokens"] == len(slots.texts()[0]) // 4
            assert len(record["compatible"]) == 32
            assert balancer.metric("prompt_bytes_total", kind="written") == record["bytes"]


async def test_the_slot_is_found_where_slots_reports_the_numbers_of_the_last_response(
    tmp_path: Path,
) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path, keeps_numbers=True)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: agent.records)


async def test_a_prompt_is_saved_when_its_slot_has_been_idle(
    tmp_path: Path, clock: SteppedLoop
) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            await balancer.request(chat("hello"))
            await clock.advance(IDLE_SECONDS - 1)
            assert not agent.records
            await clock.advance(2)
            await until(lambda: balancer.metric("prompt_saves_total", reason="idle"))


async def test_a_short_prompt_is_not_saved(tmp_path: Path) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(3):
                await balancer.request(post("/v1/chat/completions", b'{"messages": ["short"]}'))
            balancer.terminate(llama)
            await agent.done.wait()

            assert slots.actions == []


async def test_the_slots_of_an_ending_replica_are_saved_after_its_requests(tmp_path: Path) -> None:
    may_end = asyncio.Event()

    async def wait_for_long(call: Call) -> None:
        if b"long" in call.body:
            await may_end.wait()

    async with FakeLlama(3) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path, before_response=wait_for_long)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            await balancer.request(chat(system="first" * 300))
            async with await balancer.start_request(chat(system="long" * 300)) as client:
                await llama.wait_calls(2)
                balancer.terminate(llama)
                for _ in range(20):
                    await asyncio.sleep(0.001)
                assert not agent.done.is_set()

                may_end.set()
                await client.response()
                await agent.done.wait()

        assert len(agent.records) == 2
        assert {action for action, _ in slots.actions} == {"save"}
        assert {slot for _, slot in slots.actions} == {0, 1}
        assert agent.requests[-1] == "POST /done"


async def test_the_agent_is_told_which_prompts_were_sent_once(tmp_path: Path) -> None:
    async with FakeLlama(3) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            await prompts_known(balancer)
            for text in ("long", "longer", "longer"):
                await balancer.request(chat(system=text * 400))
            balancer.terminate(llama)
            await agent.done.wait()

        tokens_once = [(each["tokens"] > 500, each["once"]) for each in agent.records.values()]
        assert sorted(tokens_once) == [(False, True), (True, False)]


async def test_an_ending_replica_without_prompts_is_done_at_once(tmp_path: Path) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            balancer.terminate(llama)
            await agent.done.wait()


async def test_a_replica_that_vanishes_from_the_endpoints_is_saved_too(tmp_path: Path) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            await balancer.request(chat("hello"))
            await prompts_known(balancer)
            balancer.proxy.set_replicas({})
            assert llama.name not in balancer.dispatcher.replicas
            await agent.done.wait()

        assert len(agent.records) == 1


async def test_a_new_leader_reports_a_replica_as_done_that_was_ending_before(
    tmp_path: Path,
) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            balancer.proxy.become_standby(None)
            balancer.terminate(llama)
            assert not agent.done.is_set()
            balancer.proxy.become_leader()
            await agent.done.wait()


async def test_a_save_whose_slot_was_used_meanwhile_is_discarded(tmp_path: Path) -> None:
    async with FakeLlama(1) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)

        async def use_slot(_: Call) -> None:
            slots.slots[0].task = 99

        slots.before_action = use_slot
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_save_failures_total", reason="reused"))
            await until(lambda: not agent.file_names())

        assert slots.actions == [("save", 0)]
        assert not agent.records


async def test_a_save_that_a_request_defers_is_given_up(tmp_path: Path) -> None:
    may_end = asyncio.Event()

    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)

        async def use_slot(_: Call) -> None:
            slots.slots[0].busy = True
            await may_end.wait()

        slots.before_action = use_slot
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_save_failures_total", reason="reused"))
            may_end.set()

        assert not agent.records


async def test_a_file_that_the_agent_completes_too_late_is_kept(tmp_path: Path) -> None:
    timings = replace(FAST_PROMPT_TIMINGS, agent=0.05)
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)

        async def stop_agent(_: Call) -> None:
            agent.silent = True

        slots.before_action = stop_agent
        async with run_balancer(llama, prompt_files=agent.port, prompt_timings=timings) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_save_failures_total", reason="failed"))
            requests = len(agent.requests)
            await balancer.request(chat("hello"))
            for _ in range(20):
                await asyncio.sleep(0.001)

        assert not any(each.startswith("DELETE") for each in agent.requests[requests:])


async def test_a_full_disk_is_counted_and_saving_pauses(tmp_path: Path) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path, failing={"save"})
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_save_failures_total", reason="failed"))
            for _ in range(2):
                assert (await balancer.request(chat("other"))).status == 200

            assert balancer.metric("prompt_save_failures_total", reason="failed") == 1
            await until(lambda: any("DELETE /files/" in each for each in agent.requests))


async def test_a_full_folder_is_reported(tmp_path: Path) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        slots = PromptSlots(llama, tmp_path)
        agent.has_room = False
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for _ in range(2):
                await balancer.request(chat("hello"))
            await until(lambda: balancer.metric("prompt_save_failures_total", reason="no_room"))

            page = await balancer.admin_json("/debug/queue")
            assert page["promptFiles"]["reason"] == "FolderFull"
            assert slots.actions == []


async def test_a_longer_version_of_a_conversation_replaces_the_shorter_one(tmp_path: Path) -> None:
    async with FakeLlama(2) as llama, FakeAgent(tmp_path) as agent:
        PromptSlots(llama, tmp_path)
        async with run_balancer(llama, prompt_files=agent.port) as balancer:
            for texts in (("a",), ("a", "b" * 700)):
                for _ in range(2):
                    await balancer.request(chat(*texts))
                saved = balancer.metric
                count = 1 if len(texts) == 1 else 2
                await until(lambda: saved("prompt_saves_total", reason="repeated") == count)  # noqa: B023 (waited for)
            await until(lambda: len(agent.records) == 1)

            assert len(agent.file_names()) == 1
