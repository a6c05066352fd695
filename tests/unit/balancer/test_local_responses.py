import json
from typing import Any

import pytest

from balancer_harness import Balancer, run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import get, post
from slotkeeper.edge.routes import Route, route
from slotkeeper.wire.errors import HttpError


async def get_json(balancer: Balancer, path: str) -> Any:
    return json.loads((await balancer.request(get(path))).body)


async def test_health_is_like_llama_servers() -> None:
    async with FakeLlama() as llama, run_balancer() as balancer:
        loading = await balancer.request(get("/health"))
        assert loading.status == 503
        assert json.loads(loading.body)["error"]["message"] == "Loading model"

        async with await balancer.start_request(post("/completion")) as client:
            balancer.proxy.replicas.set_targets({llama.name: True})
            await client.response()
        assert await get_json(balancer, "/health") == {"status": "ok"}


async def test_the_model_is_listed_without_a_replica_too() -> None:
    async with run_balancer() as balancer:
        models = await get_json(balancer, "/v1/models")

    assert models["object"] == "list"
    assert models["data"][0]["id"] == "tiny"


async def test_slots_of_all_replicas_are_listed_like_those_of_one_server() -> None:
    async with (
        FakeLlama(2, stream_two_events) as first,
        FakeLlama(1, stream_two_events) as second,
        run_balancer(first, second) as balancer,
        await balancer.start_request(post("/completion", b"secret")),
    ):
        slots = await get_json(balancer, "/slots")

        assert [slot["id"] for slot in slots] == [0, 1, 2]
        assert sorted(slot["is_processing"] for slot in slots) == [False, False, True]
        assert {slot["n_ctx"] for slot in slots} == {512}
        assert "secret" not in json.dumps(slots)


async def test_props_are_those_of_all_replicas_together() -> None:
    async with (
        FakeLlama(2) as first,
        FakeLlama(1) as second,
        run_balancer(first, second) as balancer,
    ):
        assert await get_json(balancer, "/props") == {
            "total_slots": 3,
            "default_generation_settings": {"n_ctx": 512},
            "model_alias": "tiny",
        }


async def test_local_responses_need_no_slot_and_are_not_queued() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        assert (await balancer.request(get("/health"))).status == 200
        assert (await balancer.request(get("/v1/models"))).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/slots/0?action=erase", 404),
        ("POST", "/props", 405),
        ("POST", "/lora-adapters", 404),
        ("POST", "/models/load", 404),
        ("POST", "/models/unload", 404),
        ("POST", "/metrics", 405),
        ("GET", "/completion", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("POST", "/../slots/0", 404),
        ("POST", "/%63ompletion", 404),
        ("POST", "//completion", 404),
        ("POST", "/v1/chat/completions/control", 404),
    ],
)
async def test_administrative_and_unknown_routes_reach_no_replica(
    method: str, path: str, status: int
) -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        response = await balancer.request(get(path, "Content-Length: 0", method=method))

        assert response.status == status
        assert "error" in json.loads(response.body)
        assert llama.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/completion",
        "/infill",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/embedding",
        "/rerank",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/rerank",
    ],
)
def test_inference_is_proxied(path: str) -> None:
    assert route(b"POST", path.encode()) in {Route.INFERENCE, Route.PASSTHROUGH}
    with pytest.raises(HttpError):
        route(b"PUT", path.encode())


async def test_demand_is_reported_with_its_peak() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_balancer(llama) as balancer:
        clients = [await balancer.start_request(post("/completion")) for _ in range(3)]
        busy = await balancer.admin_json("/autoscaling")
        assert busy.pop("oldestQueuedSeconds") >= 0
        assert busy.pop("arrivalsPerSecond") == 0.05
        assert 0 < busy.pop("meanDemand") <= 3
        assert busy == {
            "leader": True,
            "slots": {"total": 2, "busy": 2},
            "queued": 1,
            "replicas": 1,
            "busyByReplica": {llama.name: 2},
            "demand": 3,
            "peakDemand": 3,
            "meanServiceSeconds": None,
        }

        for client in clients:
            client.reset()
        await balancer.wait_idle()
        idle = await balancer.admin_json("/autoscaling")
        assert (idle["demand"], idle["peakDemand"]) == (0, 3)


async def test_service_time_is_reported_after_six_completions() -> None:
    async with FakeLlama(2) as llama, run_balancer(llama) as balancer:
        for _ in range(5):
            await balancer.request(post("/completion"))
        await balancer.wait_idle()
        five = await balancer.admin_json("/autoscaling")
        await balancer.request(post("/completion"))
        await balancer.wait_idle()
        six = await balancer.admin_json("/autoscaling")

        assert five["meanServiceSeconds"] is None
        assert 0 <= six["meanServiceSeconds"] < 60


async def test_the_metrics_port_serves_metrics_and_probes() -> None:
    async with FakeLlama(2) as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/completion"))
        text = (await balancer.admin_request("/metrics")).body
        name = f'{{replica="{llama.name}"}}'.encode()
        for line in (
            b"slotkeeper_balancer_slots" + name + b" 2.0",
            b"slotkeeper_balancer_slots_busy" + name + b" 0.0",
            b"slotkeeper_balancer_queued_requests 0.0",
            b"slotkeeper_balancer_queue_duration_seconds_count 1.0",
            b"slotkeeper_balancer_time_to_first_token_seconds_count 1.0",
            b"slotkeeper_balancer_request_duration_seconds_count 1.0",
            b'slotkeeper_balancer_requests_total{code="200",outcome="completed"} 1.0',
        ):
            assert line in text.splitlines()

        async def status(path: str) -> int:
            return (await balancer.admin_request(path)).status

        assert await status("/healthz") == 200
        assert await status("/ready") == 503
        balancer.admin.ready = True
        assert await status("/ready") == 200
        balancer.proxy.draining = True
        assert await status("/ready") == 503
        assert await status("/completion") == 404
