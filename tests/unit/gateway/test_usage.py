"""Metrics and usage log count exactly what servers report, for the right API key and model."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import post
from running_gateway import ANN, BOB, KEYS, RunningGateway, run_gateway, two_keys
from slotkeeper.edge.api_keys import ApiKeys
from wait_until import until

CHAT = "/v1/chat/completions"
LOGGED = {"usageLog": "Stdout", "aliases": {"alias-of-one": "one"}}
Totals = Counter[tuple[str, str]]
"""Tokens by model and kind."""

DELTA = '{"choices":[{"index":0,"delta":{"content":"x"}}]}'


def body(model: str, **fields: Any) -> bytes:
    return json.dumps({"model": model, "prompt": "secret-prompt", **fields}).encode()


def compact(tree: object) -> str:
    """Encode JSON as llama-server does."""
    return json.dumps(tree, separators=(",", ":"))


class ReportingLlama(FakeLlama):
    """Reports random token counts at each of the places where llama-server does."""

    def __init__(self, name: str) -> None:
        super().__init__(100, self.respond)
        self.model = name
        self.reported: Totals = Counter()
        self._rng = random.Random(name)

    async def respond(self, call: Call) -> None:
        prompt, cached, generated = (self._rng.randint(0, 10**6) for _ in range(3))
        stream = json.loads(call.body).get("stream")
        if "embedding" in call.path or "rerank" in call.path:
            cached = generated = 0
            tree: Any = {"usage": {"prompt_tokens": prompt, "total_tokens": prompt}, "data": []}
        elif call.path == "/v1/messages":
            usage = {"input_tokens": prompt, "cache_read_input_tokens": cached}
            if stream:
                started = {"type": "message_start", "message": {"usage": usage}}
                await self._stream(
                    call,
                    started,
                    {"type": "message_delta", "usage": {"output_tokens": generated}},
                )
            tree = {"content": [], "usage": {**usage, "output_tokens": generated}}
        elif call.path == "/v1/responses":
            tree = {
                "output": [],
                "usage": {
                    "input_tokens": prompt + cached,
                    "output_tokens": generated,
                    "input_tokens_details": {"cached_tokens": cached},
                },
            }
        else:
            timings = {"prompt_n": prompt, "cache_n": cached, "predicted_n": generated}
            tree = {"choices": [], "timings": timings}
            if stream:
                # No stream_options: llama-server sends timings all the same.
                await self._stream(call, json.loads(DELTA), tree)
        if not stream:
            content = compact(tree).encode()
            await call.send_head(chunked=False, length=len(content))
            call.free_slot()
            await call.write(content)
        for kind, count in (("prompt", prompt), ("cached", cached), ("generated", generated)):
            self.reported[self.model, kind] += count

    async def _stream(self, call: Call, *events: object) -> None:
        await call.send_head()
        for event in events:
            await call.send_event(compact(event))
        await call.end()


async def test_the_log_and_the_metrics_have_the_tokens_that_the_servers_reported() -> None:
    one, two = ReportingLlama("one"), ReportingLlama("two")
    async with one, two, run_gateway(LOGGED, keys=two_keys(), one=one, two=two) as gateway:
        requests = [
            post(path, body(model, stream=stream), key)
            for key in (ANN, BOB)
            for model in ("one", "two", "alias-of-one")
            for path, stream in (
                (CHAT, True),
                (CHAT, False),
                ("/v1/completions", True),
                ("/v1/messages", True),
                ("/v1/messages", False),
                ("/v1/responses", False),
                ("/v1/embeddings", False),
                ("/v1/rerank", False),
            )
        ]
        responses = await asyncio.gather(*map(gateway.request, requests))
        await gateway.wait_idle()

        assert {each.status for each in responses} == {200}
        reported = one.reported + two.reported
        lines = gateway.usage_log()
        assert len(lines) == len(requests)
        logged: Totals = Counter()
        for line in lines:
            logged[line["model"], "prompt"] += line["prompt_tokens"] - line["cached_tokens"]
            logged[line["model"], "cached"] += line["cached_tokens"]
            logged[line["model"], "generated"] += line["completion_tokens"]
        assert logged == reported
        assert metric_totals(gateway) == reported
        for key in KEYS:
            [by_key] = [[line for line in lines if line["key"] == key]]
            assert len(by_key) == len(requests) // 2
            assert sum(line["completion_tokens"] for line in by_key) == sum(
                gateway.metric("tokens_total", model=model, key=key, kind="generated")
                for model in ("one", "two")
            )
            seconds = sum(line["duration_seconds"] for line in by_key)
            counted = sum(
                gateway.metric("request_seconds_total", model=model, key=key)
                for model in ("one", "two")
            )
            assert abs(seconds - counted) < 1e-4
        assert len({line["id"] for line in lines}) == len(lines)


async def test_a_line_has_exactly_the_documented_fields() -> None:
    async with (
        ReportingLlama("one") as one,
        run_gateway(LOGGED, keys=two_keys(), one=one) as gateway,
    ):
        await gateway.request(post(CHAT, body("alias-of-one", stream=True), ANN))
        await gateway.wait_idle()
        [line] = gateway.usage_log()

    assert line.pop("id").endswith("-1")
    assert line.pop("duration_seconds") >= 0
    tokens = {name: line.pop(f"{name}_tokens") for name in ("prompt", "cached", "completion")}
    assert tokens["prompt"] == one.reported["one", "prompt"] + tokens["cached"]
    assert line == {
        "time": 1_700_000_000.0,
        "log": "usage",
        "trace": None,
        "key": "ann",
        "model": "one",
        "requested_model": "alias-of-one",
        "server": "one",
        "path": CHAT,
        "stream": True,
        "status": 200,
        "outcome": "completed",
        "streamed_events": 2,
        "wait_seconds": None,
    }


async def test_the_log_is_off_by_default_and_follows_the_configuration() -> None:
    async with ReportingLlama("one") as one, run_gateway(one=one) as gateway:
        for enabled in (False, True, False):
            gateway.configure({"usageLog": "Stdout"} if enabled else {})
            await gateway.request(post(CHAT, body("one")))
            await gateway.wait_idle()

        assert [line["id"].split("-")[1] for line in gateway.usage_log()] == ["1"]


async def test_neither_prompts_nor_secrets_are_logged() -> None:
    async with (
        FakeLlama() as one,
        run_gateway(LOGGED, keys=two_keys(), one=one) as gateway,
    ):
        await gateway.request(post(CHAT, body("one"), ANN))
        await gateway.wait_idle()
        gateway.usage_log()

        logged = gateway.usage_stream.getvalue()
        assert '"key": "ann"' in logged
        assert "secret-prompt" not in logged
        assert "key-of-ann" not in logged


async def test_an_aborted_stream_has_no_tokens_but_the_events_that_were_sent() -> None:
    async def three_events_then_lost(call: Call) -> None:
        await call.send_head()
        for _ in range(3):
            await call.send_event(DELTA)
        call.close()

    async with (
        FakeLlama(1, three_events_then_lost) as one,
        run_gateway(LOGGED, one=one) as gateway,
    ):
        client = await gateway.connect()
        await client.send(post(CHAT, body("one", stream=True)))
        await until(gateway.usage_log)
        [line] = gateway.usage_log()

        assert (line["outcome"], line["streamed_events"]) == ("aborted", 3)
        assert [line[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion")] == [None] * 3
        assert gateway.metric("unreported_usage_total", model="one", key="") == 1
        assert metric_totals(gateway) == Counter()


async def test_the_events_up_to_a_disconnect_of_the_client_are_counted() -> None:
    async def endless(call: Call) -> None:
        await call.send_head()
        await call.send_event(DELTA)
        await call.disconnected.wait()

    async with FakeLlama(1, endless) as one, run_gateway(LOGGED, one=one) as gateway:
        client = await gateway.start_request(post(CHAT, body("one", stream=True)))
        await client.reader.readuntil(b"delta")
        client.reset()
        await gateway.wait_idle()
        [line] = gateway.usage_log()

        assert (line["outcome"], line["streamed_events"]) == ("client_disconnected", 1)


async def test_generated_text_is_not_counted_as_an_event() -> None:
    async def quotes_an_event(call: Call) -> None:
        await call.send_head()
        await call.send_event(compact({"text": 'data: {"text": 1}\n\ndata: {"'}))
        await call.end()

    async with FakeLlama(1, quotes_an_event) as one, run_gateway(LOGGED, one=one) as gateway:
        await gateway.request(post(CHAT, body("one", stream=True)))
        await gateway.wait_idle()

        assert gateway.usage_log()[0]["streamed_events"] == 1


async def test_rejected_requests_have_no_line_and_create_no_series() -> None:
    async with (
        FakeLlama() as one,
        run_gateway(LOGGED, keys=two_keys(), one=one) as gateway,
    ):
        for key, model in ((ANN, "unknown-model"), ("X-Api-Key: unknown-key", "one")):
            response = await gateway.request(post(CHAT, body(model), key))
            assert response.status in {401, 404}

        assert gateway.usage_log() == []
        labels = {
            (sample.labels.get("model"), sample.labels.get("key"))
            for family in gateway.gateway.metrics.collect()
            for sample in family.samples
            if "key" in sample.labels
        }
        assert labels == {("", "ann"), ("", "")}
        text = gateway.gateway.metrics.text()
        assert b"unknown-model" not in text
        assert b"unknown-key" not in text


async def test_the_series_of_removed_keys_are_dropped() -> None:
    keys = ApiKeys(b"salt")
    keys.replace(KEYS)
    async with ReportingLlama("one") as one, run_gateway(keys=keys, one=one) as gateway:
        for key in (ANN, BOB):
            await gateway.request(post(CHAT, body("one"), key))
        await gateway.wait_idle()
        assert b'key="bob"' in gateway.gateway.metrics.text()

        keys.replace({"ann": KEYS["ann"]})

        assert b'key="bob"' not in gateway.gateway.metrics.text()
        assert b'key="ann"' in gateway.gateway.metrics.text()


async def test_the_time_in_the_queue_is_that_which_the_balancer_reports() -> None:
    async def after_waiting(call: Call) -> None:
        await call.send_head(extra="X-Slotkeeper-Wait-Seconds: 12.500\r\n")
        await call.end()

    async def invalid(call: Call) -> None:
        await call.send_head(extra="X-Slotkeeper-Wait-Seconds: inf\r\n")
        await call.end()

    async with FakeLlama(1, after_waiting) as one, run_gateway(LOGGED, one=one) as gateway:
        await gateway.request(post(CHAT, body("one", stream=True)))
        one.script = invalid
        await gateway.request(post(CHAT, body("one", stream=True)))
        await gateway.wait_idle()

        assert [line["wait_seconds"] for line in gateway.usage_log()] == [12.5, None]
        assert gateway.metric("queue_seconds_total", model="one", key="") == 12.5
        assert gateway.metric("queue_duration_seconds_count", model="one") == 1


async def test_the_wait_of_a_kept_alive_stream_ends_with_its_first_event() -> None:
    async def one_event(call: Call) -> None:
        await call.send_head()
        await call.send_event(DELTA)
        await call.end()

    async with (
        FakeLlama(1, one_event) as llama,
        run_balancer(heartbeat_seconds=0.02) as balancer,
        run_gateway(LOGGED, one=balancer) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, body("one", stream=True)))
        for _ in range(3):
            await client.reader.readuntil(b": queued, position 1\n\n")
        balancer.proxy.set_replicas({llama.name: True})
        await client.reader.readuntil(b"0\r\n\r\n")
        await gateway.wait_idle()
        [line] = gateway.usage_log()

        assert line["streamed_events"] == 1
        assert 0.05 <= line["wait_seconds"] <= line["duration_seconds"]
        first = "gen_ai_server_time_to_first_token_seconds_sum"
        registry = gateway.gateway.metrics._registry
        labels = {
            "gen_ai_operation_name": "chat",
            "gen_ai_provider_name": "llama.cpp",
            "gen_ai_request_model": "one",
        }
        measured = registry.get_sample_value(first, labels)
        assert measured is not None
        assert abs(measured - line["wait_seconds"]) < 1e-5


async def test_lines_of_requests_in_progress_are_written_at_shutdown() -> None:
    async with FakeLlama(1, stream_two_events) as one, run_gateway(LOGGED, one=one) as gateway:
        await gateway.start_request(post(CHAT, body("one", stream=True)))
        await until(lambda: one.calls)
        await gateway.gateway.close()

        assert '"log": "usage"' in gateway.usage_stream.getvalue()


def metric_totals(gateway: RunningGateway) -> Totals:
    totals: Totals = Counter()
    for family in gateway.gateway.metrics.collect():
        if family.name == "slotkeeper_gateway_tokens":
            for sample in family.samples:
                totals[sample.labels["model"], sample.labels["kind"]] += int(sample.value)
    return totals
