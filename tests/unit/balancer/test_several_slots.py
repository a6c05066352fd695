"""Requests with several prompts or completions, which take several slots of one replica."""

import asyncio
import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, never_respond
from raw_http import Response, post
from slotkeeper.balancer.proxy.prompt_limits import UNLIMITED_BYTES, PromptLimits
from slotkeeper.llamacpp.tasks import tasks_of
from slotkeeper.scheduling import RunningLimits
from wait_until import until

MIB = 1024 * 1024
LARGE = 2 * MIB
"""Bytes of a body that is inspected in several steps."""


async def respond_on_event(call: Call) -> None:
    await call.proceed.wait()
    await call.send_json({})


def llama_server(slots: int) -> FakeLlama:
    llama = FakeLlama(slots, respond_on_event)
    llama.tasks = lambda call: tasks_of(call.path, json.loads(call.body)).slots_on(slots)
    return llama


def chat(n: int, name: str = "") -> bytes:
    return post("/v1/chat/completions", json.dumps({"messages": [name], "n": n}).encode())


def prompts(count: int, padding: int = 0) -> bytes:
    body = {"padding": "x" * padding, "prompt": ["a"] * count}
    return post("/v1/completions", json.dumps(body).encode())


@pytest.mark.parametrize("padding", [0, LARGE])
async def test_a_request_takes_as_many_slots_as_it_has_prompts(padding: int) -> None:
    async with (
        llama_server(4) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(prompts(3, padding)) as first,
        await balancer.start_request(prompts(2)) as second,
    ):
        await llama.wait_calls(1)
        report = await balancer.admin_json("/autoscaling")
        assert report["slots"]["busy"] == 3
        assert (report["queued"], report["furtherTasks"], report["demand"]) == (1, 1, 5)
        await llama.proceed(0)
        assert (await first.response()).status == 200
        await llama.proceed(1)
        assert (await second.response()).status == 200
        await balancer.wait_idle()

        assert (llama.max_busy, llama.overcommitted) == (3, 0)


async def test_a_request_with_more_prompts_than_slots_takes_all_and_its_rest_is_demand() -> None:
    async with (
        llama_server(2) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(prompts(8)) as client,
    ):
        await llama.wait_calls(1)
        report = await balancer.admin_json("/autoscaling")
        assert report["slots"] == {"total": 2, "busy": 2}
        assert (report["queued"], report["furtherTasks"], report["demand"]) == (0, 6, 8)
        assert balancer.metric("further_tasks") == 6
        await llama.proceed(0)
        await client.response()
        await balancer.wait_idle()

        assert (await balancer.admin_json("/autoscaling"))["demand"] == 0


async def test_requests_of_all_sizes_never_find_too_few_slots() -> None:
    async def respond_soon(call: Call) -> None:
        await asyncio.sleep(0)
        await call.send_json({"name": json.loads(call.body)["messages"]})

    async with llama_server(3) as one, llama_server(4) as two, run_balancer(one, two) as balancer:
        one.script = two.script = respond_soon
        numbers = [1, 3, 2, 1, 1, 4, 2, 3, 1, 2] * 10
        responses = await asyncio.gather(
            *(balancer.request(chat(n, str(at))) for at, n in enumerate(numbers))
        )
        await balancer.wait_idle()

        assert {each.status for each in responses} == {200}
        assert one.overcommitted == two.overcommitted == 0
        assert (one.max_busy, two.max_busy) == (3, 4)


async def test_slots_of_a_failed_request_are_free_when_llama_server_has_freed_them() -> None:
    async def fail(call: Call) -> None:
        free, call.free_slot = call.free_slot, lambda: None
        await call.send_json({"error": {}}, "400 Bad Request")
        await call.proceed.wait()
        free()

    async with llama_server(2) as llama, run_balancer(llama) as balancer:
        llama.script = fail
        assert (await balancer.request(chat(2))).status == 400
        llama.script = respond_on_event
        polls = llama.slots_polls
        await until(lambda: llama.slots_polls > polls + 2)
        assert balancer.dispatcher.busy_slots == 2

        llama.calls[0].proceed.set()
        await balancer.wait_idle()


async def test_a_disconnected_client_frees_all_its_slots() -> None:
    async with llama_server(2) as llama, run_balancer(llama) as balancer:
        llama.script = never_respond
        client = await balancer.start_request(prompts(5))
        await llama.wait_calls(1)
        await client.close()
        await balancer.wait_idle()

        assert (await balancer.admin_json("/autoscaling"))["furtherTasks"] == 0


async def test_a_harmful_body_is_rejected_before_it_is_queued() -> None:
    small = post("/v1/chat/completions", b'{"tools": ' + b"[" * 200 + b"]" * 200 + b"}")
    large = post("/v1/chat/completions", b'{"tools": ' + b"[" * LARGE + b"]" * LARGE + b"}")
    zipped = post("/v1/chat/completions", b"{}", "Content-Encoding: gzip")
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        responses = [await balancer.request(each) for each in (small, large, zipped)]

        assert [(each.status, each.error_code) for each in responses] == [
            (400, "nested_too_deeply"),
            (400, "nested_too_deeply"),
            (415, "unsupported_encoding"),
        ]
        assert [line["code"] for line in balancer.access_log()] == [
            "nested_too_deeply",
            "nested_too_deeply",
            "unsupported_encoding",
        ]
        assert not llama.calls


async def test_a_large_body_that_is_no_json_is_not_called_a_prompt() -> None:
    bodies = (b"x" * LARGE, b" " * 70_000, b"[" + b"1," * LARGE + b"1]")
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        balancer.proxy.inspection.prompt_limits = PromptLimits(media=False)
        responses = [await balancer.request(post("/completion", body)) for body in bodies]

        assert {(each.status, each.error_code) for each in responses} == {(400, "invalid_json")}
        assert not llama.calls


async def test_a_client_that_disconnects_while_its_body_is_inspected_leaves_nothing() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        async with balancer.proxy.inspection._lock, await balancer.connect() as client:
            await client.send(prompts(1, LARGE))
            await until(lambda: balancer.proxy.inspection.running == 1)
        await until(lambda: balancer.proxy.inspection.running == 0)

        assert not llama.calls
        assert await balancer.proxy.drain(5) == 0


# The context of a fake is 512 tokens.
CONTEXT_BYTES = 512 * 64


async def respond_with_limits(
    limits: PromptLimits, request: bytes, *, slots: int = 1
) -> tuple[Response, int]:
    """Return the response of a replica, and the number of requests that reached it."""
    async with FakeLlama(slots) as llama, run_balancer(llama) as balancer:
        balancer.proxy.inspection.prompt_limits = limits
        return await balancer.request(request), len(llama.calls)


def text(size: int) -> bytes:
    return post("/completion", json.dumps({"prompt": "x" * size}).encode())


@pytest.mark.parametrize(
    ("limits", "request_", "status"),
    [
        (PromptLimits(media=False), text(8 * MIB), 413),
        (PromptLimits(media=False), text(UNLIMITED_BYTES - 100), 200),
        (PromptLimits(media=False), text(UNLIMITED_BYTES), 413),
        (PromptLimits(media=True), text(8 * MIB), 200),
        (PromptLimits(512 * MIB), text(8 * MIB), 200),
        (PromptLimits(512 * MIB, media=False), post("/tokenize", b"x" * MIB), 200),
        (PromptLimits(512 * MIB, media=False), post("/tokenize", b"{" + b"x" * 8 * MIB), 413),
        (PromptLimits(128 * MIB), text(8 * MIB), 413),
        (PromptLimits(media=False), post("/infill", b"x" * MIB), 200),
        (PromptLimits(media=False), prompts(4, 4 * CONTEXT_BYTES - 1000), 200),
        (PromptLimits(media=False), prompts(4, 4 * CONTEXT_BYTES), 413),
    ],
)
async def test_a_body_that_no_replica_can_hold_is_rejected(
    limits: PromptLimits, request_: bytes, status: int
) -> None:
    response, calls = await respond_with_limits(limits, request_)

    assert response.status == status
    assert calls == (status == 200)
    if status == 413:
        assert response.error_code == "prompt_too_large"


async def test_a_request_for_more_slots_than_its_key_may_hold_is_rejected() -> None:
    async with llama_server(4) as llama, run_balancer() as balancer:
        balancer.dispatcher.running_limits = RunningLimits(2)
        async with await balancer.start_request(chat(3)) as client:
            balancer.proxy.set_replicas({llama.name: True})
            queued_before = await client.response()
        response = await balancer.request(prompts(9))

        assert [(each.status, each.error_code) for each in (queued_before, response)] == [
            (400, "too_many_slots"),
            (400, "too_many_slots"),
        ]
        assert not llama.calls
        await balancer.wait_idle()


async def test_a_body_queued_without_a_replica_is_checked_when_there_is_one() -> None:
    async with FakeLlama() as llama, run_balancer() as balancer:
        balancer.proxy.inspection.prompt_limits = PromptLimits(media=False)
        async with await balancer.start_request(text(MIB)) as client:
            balancer.proxy.set_replicas({llama.name: True})
            response = await client.response()

        assert (response.status, response.error_code) == (413, "prompt_too_large")
        assert not llama.calls
        await balancer.wait_idle()
