import json

from balancer_harness import balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import get, post
from wait_until import until

TIMINGS = {"cache_n": 236, "prompt_n": 17, "prompt_ms": 30.9, "predicted_n": 35}


async def stream(call: Call) -> None:
    await call.head()
    for text in ("hello", json.dumps({"choices": [], "timings": TIMINGS}), "[DONE]"):
        await call.event(text)
    await call.end()


async def test_tokens_are_in_the_metrics_and_in_the_log() -> None:
    async def whole(call: Call) -> None:
        await call.whole({"content": "x" * 100_000, "timings": {"prompt_n": 1, "predicted_n": 2}})

    async with FakeLlama(1, stream) as llama, balancer(llama) as made:
        await made.ask(post("/v1/chat/completions"))
        llama.script = whole
        await made.ask(post("/v1/chat/completions"))

        kinds = ("prompt", "cached", "generated")
        assert [made.metric("tokens_total", kind=kind) for kind in kinds] == [18, 236, 37]
        for line, counts in zip(made.lines(), [(17, 236, 35), (1, 0, 2)], strict=False):
            assert tuple(line[f"{kind}_tokens"] for kind in kinds) == counts


async def test_an_answer_that_did_not_come_to_its_end_counts_none() -> None:
    async def leave_out_the_end(call: Call) -> None:
        await call.head()
        await call.event(json.dumps({"timings": TIMINGS}))
        await call.go.wait()

    async with FakeLlama(1, leave_out_the_end) as llama, balancer(llama) as made:
        client = await made.start(post("/v1/chat/completions"))
        await client.reader.readuntil(b"timings")
        client.reset()
        await made.at_rest()

        assert made.metric("tokens_total", kind="generated") == 0
        assert made.lines()[0]["generated_tokens"] is None


async def test_clients_may_read_the_metrics_of_one_big_llama_server() -> None:
    async with FakeLlama(1, stream) as llama, balancer(llama) as made:
        await made.ask(post("/v1/chat/completions"))
        llama.script = when_told
        async with await made.start(post("/completion")), await made.start(post("/completion")):
            page = await made.ask(get("/metrics"))

    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = page.body.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "llamacpp:prompt_tokens_total 17",
        "llamacpp:tokens_predicted_total 35",
        "llamacpp:requests_processing 1",
        "llamacpp:requests_deferred 1",
    ]
    assert "# TYPE llamacpp:prompt_tokens_total counter" in lines
    assert "# TYPE llamacpp:requests_deferred gauge" in lines


async def test_requests_are_counted_by_replica_while_it_is_there() -> None:
    async with FakeLlama() as first, FakeLlama() as second, balancer(first, second) as made:
        for _ in range(4):
            await made.ask(post("/completion"))
        name = {"replica": first.name}
        assert made.metric("replica_requests_total", **name) == len(first.calls) == 2

        made.proxy.replicas.set_targets({second.name: True})
        await until(lambda: first.name not in made.dispatcher.replicas)
        assert first.name.encode() not in made.proxy.metrics.text()
        assert first.name not in made.proxy.metrics.replica_requests
        assert made.metric("replica_requests_total", replica=second.name) == 2
