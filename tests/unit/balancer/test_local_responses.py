import json
from typing import Any

import pytest

from balancer_harness import Balancer, balancer
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.edge.routes import Route, route
from slotkeeper.wire.errors import HttpError


async def page(made: Balancer, path: str) -> Any:
    return json.loads((await made.ask(get(path))).body)


async def metrics_page(made: Balancer, path: str) -> tuple[int, bytes]:
    async with await RawClient.connect(made.metrics_port) as client:
        response = await client.ask(get(path))
        return response.status, response.body


async def test_health_is_llama_servers_own() -> None:
    async with FakeLlama() as llama, balancer() as made:
        loading = await made.ask(get("/health"))
        assert loading.status == 503
        assert json.loads(loading.body)["error"]["message"] == "Loading model"

        async with await made.start(post("/completion")) as client:
            made.proxy.replicas.set_targets({llama.name: True})
            await client.response()
        assert await page(made, "/health") == {"status": "ok"}


async def test_the_model_is_listed_also_without_a_replica() -> None:
    async with balancer() as made:
        listed = await page(made, "/v1/models")

    assert listed["object"] == "list"
    assert listed["data"][0]["id"] == "tiny"


async def test_all_slots_are_listed_as_those_of_one_server() -> None:
    async with (
        FakeLlama(2, when_told) as first,
        FakeLlama(1, when_told) as second,
        balancer(first, second) as made,
        await made.start(post("/completion", b"secret")),
    ):
        slots = await page(made, "/slots")

        assert [slot["id"] for slot in slots] == [0, 1, 2]
        assert sorted(slot["is_processing"] for slot in slots) == [False, False, True]
        assert {slot["n_ctx"] for slot in slots} == {512}
        assert "secret" not in json.dumps(slots)


async def test_props_are_those_of_all_replicas_together() -> None:
    async with FakeLlama(2) as first, FakeLlama(1) as second, balancer(first, second) as made:
        assert await page(made, "/props") == {
            "total_slots": 3,
            "default_generation_settings": {"n_ctx": 512},
            "model_alias": "tiny",
        }


async def test_own_answers_take_no_slot_and_no_place() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")),
    ):
        assert (await made.ask(get("/health"))).status == 200
        assert (await made.ask(get("/v1/models"))).status == 200


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
async def test_administration_and_unknown_routes_reach_no_replica(
    method: str, path: str, status: int
) -> None:
    async with FakeLlama() as llama, balancer(llama) as made:
        response = await made.ask(get(path, "Content-Length: 0", method=method))

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
def test_inference_is_passed_on(path: str) -> None:
    assert route(b"POST", path.encode()) in {Route.INFERENCE, Route.PASSTHROUGH}
    with pytest.raises(HttpError):
        route(b"PUT", path.encode())


async def test_demand_is_told_with_its_peak() -> None:
    async with FakeLlama(2, when_told) as llama, balancer(llama) as made:
        clients = [await made.start(post("/completion")) for _ in range(3)]
        busy = json.loads((await metrics_page(made, "/autoscaling"))[1])
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
        await made.at_rest()
        quiet = json.loads((await metrics_page(made, "/autoscaling"))[1])
        assert (quiet["demand"], quiet["peakDemand"]) == (0, 3)


async def test_it_is_told_how_long_slots_are_kept_once_some_have_been() -> None:
    async with FakeLlama(2) as llama, balancer(llama) as made:
        for _ in range(5):
            await made.ask(post("/completion"))
        await made.at_rest()
        few = json.loads((await metrics_page(made, "/autoscaling"))[1])
        await made.ask(post("/completion"))
        await made.at_rest()
        enough = json.loads((await metrics_page(made, "/autoscaling"))[1])

        assert few["meanServiceSeconds"] is None
        assert 0 <= enough["meanServiceSeconds"] < 60


async def test_the_metrics_port_says_what_prometheus_and_probes_ask() -> None:
    async with FakeLlama(2) as llama, balancer(llama) as made:
        await made.ask(post("/completion"))
        _, text = await metrics_page(made, "/metrics")
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

        assert (await metrics_page(made, "/healthz"))[0] == 200
        assert (await metrics_page(made, "/ready"))[0] == 503
        made.admin.ready = True
        assert (await metrics_page(made, "/ready"))[0] == 200
        made.proxy.draining = True
        assert (await metrics_page(made, "/ready"))[0] == 503
        assert (await metrics_page(made, "/completion"))[0] == 404
