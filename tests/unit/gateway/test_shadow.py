"""Copies of requests for another model, which are compared with the originals."""

import json
from typing import Any

import pytest

from external_backends import CHAT
from fake_llama import Call, FakeLlama, Script, echo, never_respond
from raw_http import post
from running_gateway import READY, RunningGateway, run_gateway, server_manifest
from slotkeeper.gateway.shadow import MAX_RUNNING
from stepped_loop import SteppedLoop
from wait_until import until

ONE = b'{"model":"one"}'


def rule(percent: int = 100, to: str = "two") -> dict[str, Any]:
    return {"shadow": [{"model": "one", "to": to, "percent": percent}]}


def set_slots(gateway: RunningGateway, *, total: int = 4, busy: int = 0, **state: Any) -> None:
    """Set the status of the server that gets the copies."""
    slots = {"total": total, "busy": busy}
    gateway.set_servers(
        server_manifest("one"), server_manifest("two", state={**READY, "slots": slots, **state})
    )


def copies(gateway: RunningGateway, result: str) -> float:
    return gateway.metric("shadow_requests_total", model="one", to="two", result=result)


def with_usage(tokens: int, status: str = "200 OK") -> Script:
    async def script(call: Call) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens}
        await call.send_json({"content": "x", "usage": usage}, status)

    return script


async def test_a_copy_is_sent_and_both_sides_are_compared() -> None:
    async with (
        FakeLlama(1, with_usage(7)) as one,
        FakeLlama(1, with_usage(9, "500 Oops")) as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway)
        response = await gateway.request(post(CHAT, ONE, "X-Request-Id: 5"))
        assert (response.status, json.loads(response.body)["usage"]["completion_tokens"]) == (
            200,
            7,
        )
        await until(lambda: copies(gateway, "compared"))

        (call,) = two.calls
        assert (call.path, call.body) == (CHAT, ONE)
        assert call.headers["x-preemptible"] == "true"
        assert call.headers["x-request-id"] == "5"
        assert "x-preemptible" not in one.calls[0].headers
        for side, code, tokens in (("original", "200", 7), ("shadow", "500", 9)):
            labels = {"model": "one", "to": "two", "side": side}
            assert gateway.metric("shadow_responses_total", **labels, code=code) == 1
            assert gateway.metric("shadow_tokens_total", **labels) == tokens
            samples = gateway.gateway.metrics._registry
            name = "slotkeeper_gateway_shadow_duration_seconds_total"
            assert samples.get_sample_value(name, labels) is not None
        # Only the client's request is in the log and in the other metrics.
        assert [line["model"] for line in gateway.access_log()] == ["one"]


async def test_the_share_of_copies_is_exact() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(rule(30), one=one, two=two) as gateway,
    ):
        set_slots(gateway)
        for _ in range(20):
            await gateway.request(post(CHAT, ONE))
        await until(lambda: copies(gateway, "compared") == 6)
        assert len(two.calls) == 6


@pytest.mark.parametrize(
    "state",
    [
        {"busy": 4},
        {"total": 0},
        {"slots": None},
        {"slots": {"total": "4", "busy": 0}},
        {"readyReplicas": 0},
    ],
)
async def test_without_an_idle_slot_there_is_no_copy(state: dict[str, Any]) -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway, **state)
        assert (await gateway.request(post(CHAT, ONE))).status == 200
        assert copies(gateway, "busy") == 1
        assert two.calls == []


async def test_copies_in_progress_occupy_the_idle_slots() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama(2, never_respond) as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway, total=3, busy=1)
        for _ in range(4):
            assert (await gateway.request(post(CHAT, ONE))).status == 200
        await two.wait_calls(2)
        assert copies(gateway, "busy") == 2


async def test_copies_in_progress_and_their_size_are_bounded() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama(99, never_respond) as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway, total=99)
        large = json.dumps({"model": "one", "x": "x" * 2**20}).encode()
        assert (await gateway.request(post(CHAT, large))).status == 200
        assert copies(gateway, "too_large") == 1
        for _ in range(MAX_RUNNING + 2):
            assert (await gateway.request(post(CHAT, ONE))).status == 200
        assert copies(gateway, "limit") == 2
        await two.wait_calls(MAX_RUNNING)
        assert len(two.calls) == MAX_RUNNING


async def test_a_copy_that_fails_or_stalls_affects_no_client(clock: SteppedLoop) -> None:
    async def reset(call: Call) -> None:
        call.reset()

    async with (
        FakeLlama() as one,
        FakeLlama(1, reset) as two,
        run_gateway(rule(), one=one, two=two, test_seconds=1000) as gateway,
    ):
        set_slots(gateway)
        assert (await gateway.request(post(CHAT, ONE))).status == 200
        await until(lambda: copies(gateway, "failed") == 1)

        two.script = never_respond
        assert (await gateway.request(post(CHAT, ONE))).status == 200
        await two.wait_calls(2)
        await clock.advance(300)
        await until(lambda: copies(gateway, "failed") == 2)
        labels = {"model": "one", "to": "two", "side": "shadow", "code": "none"}
        assert gateway.metric("shadow_responses_total", **labels) == 2
        assert not gateway.gateway._shadows._running


async def test_a_copy_ends_when_its_client_disconnects() -> None:
    async with (
        FakeLlama(1, never_respond) as one,
        FakeLlama(1, never_respond) as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway)
        client = await gateway.start_request(post(CHAT, ONE))
        await one.wait_calls(1)
        (call,) = await two.wait_calls(1)
        await client.close()
        await call.disconnected.wait()
        await until(lambda: copies(gateway, "disconnected"))
        assert not gateway.gateway._shadows._running


@pytest.mark.parametrize("path", ["/tokenize", "/v1/embeddings", "/models/one/v1/rerank"])
async def test_only_requests_that_generate_are_copied(path: str) -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(rule(), one=one, two=two) as gateway,
    ):
        set_slots(gateway)
        assert (await gateway.request(post(path, ONE))).status == 200
        assert two.calls == []


async def test_a_request_that_a_fallback_serves_is_not_compared() -> None:
    async def full(call: Call) -> None:
        await call.send_json({"error": {"code": "queue_full"}}, "429 Too Many Requests")

    spec = {**rule(), "fallbacks": [{"model": "one", "to": ["three"]}]}
    async with (
        FakeLlama(1, full) as one,
        FakeLlama(1, never_respond) as two,
        FakeLlama(1, echo) as three,
        run_gateway(spec, one=one, two=two, three=three) as gateway,
    ):
        slots = {"total": 4, "busy": 0}
        gateway.set_servers(
            server_manifest("one"),
            server_manifest("two", state={**READY, "slots": slots}),
            server_manifest("three"),
        )
        assert (await gateway.request(post(CHAT, ONE))).status == 200
        await until(lambda: copies(gateway, "disconnected"))
        assert copies(gateway, "compared") == 0
