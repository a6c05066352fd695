"""GET /v1/models, /v1/models/MODEL and /health."""

import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama
from raw_http import get
from running_gateway import run_gateway, server_manifest, status
from wait_until import until


async def test_the_list_has_all_models_and_aliases_with_their_state() -> None:
    async with FakeLlama() as llama, run_gateway({"aliases": {"z": "a"}}, a=llama) as gateway:
        states = {
            "a": status("True", "Serving", readyReplicas=1),
            "b": status("True", "ScaledToZero"),
            "c": status("False", "LoadingModel"),
        }
        servers = [server_manifest(name, state=each) for name, each in states.items()]
        suspended = server_manifest("d")
        suspended["spec"]["suspend"] = True
        gateway.set_servers(*servers, suspended)
        await until(lambda: gateway.gateway.entries._entries["a"].info.capabilities)
        listed = await gateway.json("/v1/models")

        assert listed["object"] == "list"
        assert [(each["id"], each["status"]) for each in listed["data"]] == [
            ("a", {"value": "loaded"}),
            ("b", {"value": "unloaded"}),
            ("c", {"value": "loading"}),
            ("d", {"value": "unloaded", "failed": True}),
            ("z", {"value": "loaded"}),
        ]
        assert {each["created"] for each in listed["data"]} == {1767323045}
        assert await gateway.json("/models") == listed
        assert await gateway.json("/v1/models/z") == listed["data"][-1]
        response = await gateway.request(get("/v1/models/y"))
        assert (response.status, response.error_code) == (404, "model_not_found")


async def test_entries_have_what_the_balancer_reports_also_at_zero() -> None:
    async with (
        FakeLlama() as llama,
        run_balancer(llama) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        await until(lambda: balancer.proxy.aggregate.model.capabilities)
        gateway.set_servers(server_manifest("one", state=status("True", "ScaledToZero")))
        gateway.set_servers(server_manifest("one", alias="org/one"))
        await until(lambda: gateway.gateway.entries._entries["one"].info.capabilities)
        (entry,) = (await gateway.json("/v1/models"))["data"]
        assert (entry["id"], entry["meta"]) == (
            "org/one",
            {"n_ctx_train": 8192, "n_params": 9_639_552},
        )
        assert await gateway.json("/v1/models/org/one") == entry
        assert await gateway.json("/v1/models/org%2Fone") == entry
        assert (await gateway.json("/v1/models"))["models"] == [
            {
                "type": "model",
                "name": "org/one",
                "model": "org/one",
                "capabilities": ["completion"],
            }
        ]

        at_zero = status("True", "ScaledToZero")
        gateway.set_servers(server_manifest("one", alias="org/one", state=at_zero))
        (entry,) = (await gateway.json("/v1/models"))["data"]
        assert (entry["status"], "meta" in entry) == ({"value": "unloaded"}, True)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"data":[1]}', b'{"data":[{"meta":1e999}]}', b"[" * 10_000, b"\xff"]
)
async def test_a_server_that_reports_nonsense_is_listed_without_details(body: bytes) -> None:
    async def respond(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    llama = FakeLlama()
    llama.state_scripts["/v1/models"] = respond
    async with llama, run_gateway(one=llama) as gateway:
        await until(lambda: llama.connections >= 1)
        (entry,) = (await gateway.json("/v1/models"))["data"]

        assert entry["id"] == "one"
        assert "meta" not in entry


async def test_a_server_without_props_is_listed_with_its_details() -> None:
    async def not_found(call: Call) -> None:
        await call.send_json({"error": {"message": "File Not Found"}}, "404 Not Found")

    llama = FakeLlama()
    llama.state_scripts["/props"] = not_found
    async with llama, run_gateway(one=llama) as gateway:
        await until(lambda: gateway.gateway.entries._entries["one"].info.model)
        (entry,) = (await gateway.json("/v1/models"))["data"]

        assert entry["meta"]["n_ctx_train"] == 8192


async def test_nothing_is_served_before_the_configuration_and_the_servers_are_read() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        gateway.gateway._config = None
        for path in ("/health", "/v1/models", "/models/one/slots"):
            response = await gateway.request(get(path))
            assert (response.status, response.error_code) == (503, "not_synced")
        assert (await gateway.admin_request("/ready")).status == 503
        assert (await gateway.admin_request("/healthz")).status == 200

        gateway.configure({})
        assert (await gateway.admin_request("/ready")).status == 200
        health = await gateway.request(get("/health"))
        assert (health.status, json.loads(health.body)) == (200, {"status": "ok"})


async def test_unknown_paths_and_methods_are_rejected() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        for request, expected in (
            (get("/v1/unknown"), (404, "not_found")),
            (get("/models/one/props", method="POST"), (405, "method_not_allowed")),
            (get("/models/one/v1/unknown"), (404, "not_found")),
            (get("/v1/chat/completions"), (405, "method_not_allowed")),
        ):
            response = await gateway.request(request)
            assert (response.status, response.error_code) == expected
        for path, code in (("/metrics/x", 404), ("/metrics", 200)):
            assert (await gateway.admin_request(path)).status == code


async def test_the_series_of_a_deleted_model_are_dropped() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        await gateway.request(get("/models/one/health"))
        assert gateway.metric("request_duration_seconds_count", model="one") == 1
        assert gateway.metric("models", state="Ready") == 1
        gateway.set_servers()

        assert b'"one"' not in (await gateway.admin_request("/metrics")).body
