import json

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, send_garbage, stream_two_events
from raw_http import get, post
from wait_until import until

TIMINGS = {"cache_n": 236, "prompt_n": 17, "prompt_ms": 30.9, "predicted_n": 35}


async def stream(call: Call) -> None:
    await call.send_head()
    for text in ("hello", json.dumps({"choices": [], "timings": TIMINGS}), "[DONE]"):
        await call.send_event(text)
    await call.end()


async def test_tokens_are_in_the_metrics_and_in_the_access_log() -> None:
    async def whole(call: Call) -> None:
        await call.send_json(
            {"content": "x" * 100_000, "timings": {"prompt_n": 1, "predicted_n": 2}}
        )

    async with FakeLlama(1, stream) as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/v1/chat/completions"))
        llama.script = whole
        await balancer.request(post("/v1/chat/completions"))

        kinds = ("prompt", "cached", "generated")
        assert [balancer.metric("tokens_total", kind=kind) for kind in kinds] == [18, 236, 37]
        for line, counts in zip(balancer.access_log(), [(17, 236, 35), (1, 0, 2)], strict=False):
            assert tuple(line[f"{kind}_tokens"] for kind in kinds) == counts


async def test_an_incomplete_response_counts_no_tokens() -> None:
    async def omit_the_end(call: Call) -> None:
        await call.send_head()
        await call.send_event(json.dumps({"timings": TIMINGS}))
        await call.proceed.wait()

    async with FakeLlama(1, omit_the_end) as llama, run_balancer(llama) as balancer:
        client = await balancer.start_request(post("/v1/chat/completions"))
        await client.reader.readuntil(b"timings")
        client.reset()
        await balancer.wait_idle()

        assert balancer.metric("tokens_total", kind="generated") == 0
        assert balancer.access_log()[0]["generated_tokens"] is None


async def test_clients_get_metrics_like_those_of_one_llama_server() -> None:
    async with FakeLlama(1, stream) as llama, run_balancer(llama) as balancer:
        llama.state_scripts["/metrics"] = send_garbage
        await balancer.request(post("/v1/chat/completions"))
        llama.script = stream_two_events
        async with (
            await balancer.start_request(post("/completion")),
            await balancer.start_request(post("/completion")),
        ):
            response = await balancer.request(get("/metrics"))

    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.body.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "llamacpp:prompt_tokens_total 17",
        "llamacpp:tokens_predicted_total 35",
        "llamacpp:requests_processing 1",
        "llamacpp:requests_deferred 1",
    ]
    assert "# TYPE llamacpp:prompt_tokens_total counter" in lines
    assert "# TYPE llamacpp:requests_deferred gauge" in lines


async def test_requests_are_counted_by_replica_until_it_is_removed() -> None:
    async with FakeLlama() as first, FakeLlama() as second, run_balancer(first, second) as balancer:
        for _ in range(4):
            await balancer.request(post("/completion"))
        name = {"replica": first.name}
        assert balancer.metric("replica_requests_total", **name) == len(first.calls) == 2

        balancer.proxy.replicas.set_targets({second.name: True})
        await until(lambda: first.name not in balancer.dispatcher.replicas)
        assert first.name.encode() not in balancer.proxy.metrics.text()
        assert first.name not in balancer.proxy.metrics.replica_requests
        assert balancer.metric("replica_requests_total", replica=second.name) == 2
