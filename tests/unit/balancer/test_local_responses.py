import asyncio
import json
from typing import Any

import pytest

from balancer_harness import Balancer, run_balancer
from fake_llama import Call, FakeLlama, send_garbage, serve_metrics, stream_two_events
from raw_http import get, post
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.edge.routes import Route, route
from slotkeeper.wire.errors import HttpError
from wait_until import until


async def get_json(balancer: Balancer, path: str) -> Any:
    return json.loads((await balancer.request(get(path))).body)


async def test_health_is_like_llama_servers() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        assert await get_json(balancer, "/health") == {"status": "ok"}
        assert await get_json(balancer, "/v1/health") == {"status": "ok"}


async def test_a_server_without_replicas_is_healthy_because_a_request_would_be_served() -> None:
    async with FakeLlama() as llama, run_balancer() as balancer:
        asleep = await balancer.request(get("/health"))
        assert asleep.status == 200
        assert json.loads(asleep.body) == {"status": "ok", "ready_replicas": 0}

        async with await balancer.start_request(post("/completion")) as client:
            balancer.proxy.replicas.set_targets({llama.name: True})
            assert (await client.response()).status == 200


async def test_health_fails_where_a_request_would_not_be_served() -> None:
    async with run_balancer() as balancer:
        balancer.proxy.set_blocked(StartBlocker("Unschedulable", "no free GPU", permanent=False))
        assert (await balancer.request(get("/health"))).status == 200
        balancer.proxy.set_blocked(StartBlocker("ModelNotFound", "no such file", permanent=True))
        blocked = await balancer.request(get("/health"))
        assert (blocked.status, blocked.error_code) == (503, "server_unavailable")
        assert b"no such file" in blocked.body
        balancer.proxy.set_blocked(None)
        balancer.proxy.draining = True
        draining = await balancer.request(get("/health"))
        assert (draining.status, draining.error_code) == (503, "shutting_down")


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


async def test_no_slot_is_an_error_if_requested() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
    ):
        assert (await balancer.request(get("/slots?fail_on_no_slot=1"))).status == 200
        async with await balancer.start_request(post("/completion")):
            full = await balancer.request(get("/slots?fail_on_no_slot=0"))  # as llama-server
            assert (full.status, full.error_code) == (503, "no_slot")
            assert (await balancer.request(get("/slots"))).status == 200
            assert (await balancer.request(get("/slots?fail_on_no_slot"))).status == 200
    async with run_balancer() as balancer:
        assert (await balancer.request(get("/slots?fail_on_no_slot=1"))).status == 503


async def test_props_are_those_of_all_replicas_together() -> None:
    async with (
        FakeLlama(2) as first,
        FakeLlama(1) as second,
        run_balancer(first, second) as balancer,
    ):
        await until(lambda: bool(balancer.proxy.aggregate.model.props))
        assert await get_json(balancer, "/props") == {
            "total_slots": 3,
            "default_generation_settings": {"n_ctx": 512, "params": {"temperature": 0.8}},
            "model_alias": "tiny",
            "chat_template": "{{ messages }}",
            "modalities": {"vision": False},
            "build_info": "b11669-Debian",
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
        }


async def test_a_model_has_the_meta_data_of_the_replicas_also_after_they_have_ended() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        await until(lambda: bool(balancer.proxy.aggregate.model.props))
        balancer.proxy.set_replicas({})
        models = await get_json(balancer, "/v1/models")
        entry = {
            "id": "tiny",
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "slotkeeper",
            "meta": {"n_ctx_train": 8192, "n_params": 9_639_552},
        }
        assert models["data"] == [entry]
        assert models["models"][0]["capabilities"] == ["completion"]
        assert await get_json(balancer, "/v1/models/tiny") == entry
        assert (await balancer.request(get("/v1/models/t%69ny"))).status == 200
        other = await balancer.request(get("/v1/models/other"))
        assert (other.status, other.error_code) == (404, "model_not_found")
        assert (await balancer.request(get("/v1/models/"))).status == 404


async def test_a_replica_that_does_not_describe_its_model_serves_all_the_same() -> None:
    async with FakeLlama() as llama:
        llama.state_scripts["/v1/models"] = send_garbage
        async with run_balancer(llama) as balancer:
            assert (await balancer.request(post("/completion"))).status == 200
            assert (await get_json(balancer, "/v1/models"))["data"][0]["id"] == "tiny"


async def test_metrics_are_those_of_all_replicas_summed() -> None:
    async with (
        FakeLlama(2, stream_two_events) as first,
        FakeLlama(1) as second,
        run_balancer(first, second) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        response = await balancer.request(get("/metrics"))
        lines = response.body.decode().splitlines()

        assert response.headers["process-start-time-unix"] == "1700000000"
        assert "llamacpp:prompt_tokens_total 40" in lines
        assert "llamacpp:n_decode_total 1220" in lines
        assert "llamacpp:prompt_tokens_seconds 150" in lines
        assert "llamacpp:requests_processing 1" in lines  # exact, not that of the replicas
        assert "llamacpp:requests_deferred 0" in lines
        assert "# TYPE llamacpp:n_decode_total counter" in lines


async def test_many_requests_for_metrics_are_one_for_each_replica() -> None:
    requested = 0

    async def count(call: Call) -> None:
        nonlocal requested
        requested += 1
        await serve_metrics(call)

    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        llama.state_scripts["/metrics"] = count
        responses = await asyncio.gather(*(balancer.request(get("/metrics")) for _ in range(20)))

        assert {response.status for response in responses} == {200}
        assert requested == 1


async def test_metrics_of_a_replica_without_them_are_those_of_its_responses() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        llama.state_scripts["/metrics"] = send_garbage
        lines = (await balancer.request(get("/metrics"))).body.decode().splitlines()

        assert "llamacpp:prompt_tokens_total 0" in lines
        assert "llamacpp:requests_processing 0" in lines


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
        await until(lambda: bool(balancer.proxy.aggregate.builds))
        clients = [await balancer.start_request(post("/completion")) for _ in range(3)]
        busy = await balancer.admin_json("/autoscaling")
        assert busy.pop("oldestQueuedSeconds") >= 0
        assert busy.pop("arrivalsPerSecond") == 0.05
        assert 0 < busy.pop("meanDemand") <= 3
        assert busy == {
            "leader": True,
            "slots": {"total": 2, "busy": 2},
            "queued": 1,
            "furtherTasks": 0,
            "preemptible": 0,
            "unresponsive": [],
            "replicas": 1,
            "busyByReplica": {llama.name: 2},
            "demand": 3,
            "peakDemand": 3,
            "meanServiceSeconds": None,
            "viewAgeSeconds": 0.0,
            "builds": ["b11669-Debian"],
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
