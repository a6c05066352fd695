"""The page as the gateway serves it: to whom, and with which models."""

from typing import Any

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama
from raw_http import get, post
from running_gateway import (
    ANN,
    BOB,
    READY,
    RunningGateway,
    run_gateway,
    server_manifest,
    status,
    two_keys,
)

STATE = "/page/state.json"
CHAT = "/v1/chat/completions"
KEYS = {"apiKeys": {"models": {"ann": ["one"], "bob": ["fast"]}}, "aliases": {"fast": "two"}}


async def answer_with_usage(call: Call) -> None:
    """Respond with 600 generated tokens."""
    await call.send_json({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 600}})


async def models(gateway: RunningGateway, *headers: str) -> dict[str, Any]:
    state = await gateway.json(STATE, *headers)
    return {each["name"]: each for each in state["models"]}


async def test_the_files_are_public_and_the_state_requires_a_key() -> None:
    async with FakeLlama() as llama, run_gateway(keys=two_keys(), one=llama) as gateway:
        page = await gateway.request(get("/"))
        state = await gateway.request(get(STATE))

        assert (page.status, page.body[:15]) == (200, b"<!doctype html>")
        assert (await gateway.request(get("/page/app.js"))).status == 200
        assert (state.status, state.error_code) == (401, "invalid_api_key")
        assert (await gateway.request(get("/page/other"))).status == 404
        assert (await gateway.request(post("/", b"{}", ANN))).status == 405


async def test_a_key_sees_the_models_that_it_may_use() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(KEYS, keys=two_keys(), one=one, two=two) as gateway,
    ):
        assert list(await models(gateway, ANN)) == ["one"]
        # By its alias, which is the name that the key may request.
        [fast] = (await models(gateway, BOB)).values()
        assert (fast["name"], fast["server"], fast["aliases"]) == ("fast", "two", [])


async def test_the_state_has_what_the_servers_report() -> None:
    reported = READY | {"slots": {"total": 4, "busy": 1}, "queued": 2}
    async with FakeLlama() as llama, run_gateway({"aliases": {"x": "a"}}, a=llama) as gateway:
        gateway.set_servers(
            server_manifest("a", state=reported),
            server_manifest("b", state=status("True", "ScaledToZero")),
        )
        tree = await gateway.json(STATE)

        assert (tree["gateway"], tree["modelCount"]) == ("default/llm", 2)
        first, second = tree["models"]
        assert (first["state"], first["aliases"], first["queued"]) == ("Ready", ["x"], 2)
        assert first["slots"] == {"total": 4, "busy": 1}
        assert (second["state"], second["replicas"]) == ("AtZero", 0)


async def test_generated_tokens_of_responses_through_a_balancer_are_counted() -> None:
    async with (
        FakeLlama(1, answer_with_usage) as llama,
        run_balancer(llama) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        assert (await gateway.request(post(CHAT, b'{"model":"one"}'))).status == 200
        await gateway.wait_idle()

        assert (await models(gateway))["one"]["tokensPerSecond"] == 10


async def test_before_the_first_read_of_the_cluster_the_state_is_unavailable() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        gateway.gateway._has_models = False
        response = await gateway.request(get(STATE))

        assert (response.status, response.error_code) == (503, "not_synced")
