"""Ollama's API of a gateway, in front of fake servers."""

import asyncio
import json
from typing import Any

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, never_respond
from raw_http import RawClient, Response, get, post
from running_gateway import ANN, run_gateway, server_manifest, status, two_keys
from slotkeeper.scheduling import QueueLimits
from stepped_loop import SteppedLoop
from wait_until import until

USER = [{"role": "user", "content": "Hello"}]
TIMINGS = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 10, "predicted_n": 2, "predicted_ms": 20}
NDJSON = "application/x-ndjson"


def event(content: str | None = None, finish: str | None = None, **fields: Any) -> str:
    delta = {"content": content} if content else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"choices": [choice], **fields})


async def stream(call: Call) -> None:
    """Stream a chat; wait for `proceed` in the middle."""
    await call.send_head()
    await call.send_event(event("Hel"))
    await call.proceed.wait()
    await call.send_event(event("lo"))
    await call.send_event(event(finish="stop", timings=TIMINGS))
    await call.send_event("[DONE]")
    await call.end()


async def die(call: Call) -> None:
    """Stream a part of a chat; wait for `proceed`, and close the connection."""
    await call.send_head()
    await call.send_event(event("Hel"))
    await call.proceed.wait()
    call.reset()


async def respond(call: Call) -> None:
    message = {"role": "assistant", "content": "Hello"}
    choice = {"finish_reason": "stop", "message": message}
    await call.send_json({"choices": [choice], "timings": TIMINGS})


def chat(*headers: str, version: str = "1.1", **fields: Any) -> bytes:
    body = json.dumps({"model": "one", "messages": USER, **fields}).encode()
    return post("/api/chat", body, *headers, version=version)


def lines(response: Response) -> list[Any]:
    return [json.loads(line) for line in response.body.splitlines()]


def error(response: Response) -> str:
    tree = json.loads(response.body)
    assert [*tree] == ["error"]
    message: str = tree["error"]
    return message


async def first_line(client: RawClient) -> bytes:
    """Read the head and the first line of a stream."""
    await client.reader.readuntil(b"\r\n\r\n")
    return await client.reader.readuntil(b"\n\r\n")


async def test_a_stream_is_translated_as_it_arrives() -> None:
    async with FakeLlama(1, stream) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(chat(model="one:latest"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        first = await client.reader.readuntil(b"\n\r\n")
        await llama.proceed(0)
        rest = await client.reader.readuntil(b"0\r\n\r\n")
        await gateway.wait_idle()

        assert f"Content-Type: {NDJSON}".encode() in head
        assert b'"content":"Hel"' in first
        assert b'"model":"one:latest"' in first
        assert b'"done":true,"done_reason":"stop"' in rest
        [call] = llama.calls
        assert call.path == "/v1/chat/completions"
        assert call.headers["content-type"] == "application/json"
        assert json.loads(call.body)["model"] == "one"
        [line] = gateway.access_log()
        assert (line["path"], line["model"], line["status"]) == ("/api/chat", "one", 200)
        assert [line[f"{kind}_tokens"] for kind in ("prompt", "cached", "generated")] == [4, 3, 2]
        # The connection continues.
        await client.send(get("/api/version"))
        assert (await client.response()).status == 200


async def test_a_response_that_is_no_stream() -> None:
    async with FakeLlama(1, respond) as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(chat(stream=False))

        assert response.headers["content-type"].startswith("application/json")
        [tree] = lines(response)
        assert tree["message"] == {"role": "assistant", "content": "Hello"}
        assert (tree["done"], tree["prompt_eval_count"], tree["eval_count"]) == (True, 7, 2)
        assert tree["created_at"] == "2023-11-14T22:13:20Z"


async def test_a_client_of_http_1_0_gets_lines_without_chunks() -> None:
    async with FakeLlama(1, stream) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(chat(version="1.0"))
        await llama.proceed(0)
        received = await client.reader.read()

        body = received.partition(b"\r\n\r\n")[2]
        assert [json.loads(line)["done"] for line in body.splitlines()] == [False, False, True]


async def test_parts_without_content_are_sent_while_a_replica_starts() -> None:
    async with (
        FakeLlama(1, stream) as llama,
        run_balancer(heartbeat_seconds=0.02) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        gateway.set_servers(server_manifest("one", state=status("True", "ScaledToZero")))
        client = await gateway.start_request(chat())
        first = await first_line(client)
        balancer.proxy.set_replicas({llama.name: True})
        await until(lambda: len(llama.calls) == 1)
        await llama.proceed(0)
        rest = await client.reader.readuntil(b"0\r\n\r\n")

        assert b'"content":"","done":false' not in rest[-300:]
        assert b'"message":{"role":"assistant","content":""},"done":false}' in first
        [last] = [line for line in rest.splitlines() if b'"done":true' in line]
        assert json.loads(last)["load_duration"] >= 10_000_000


async def test_an_error_while_queued_is_a_line() -> None:
    async with (
        run_balancer(
            heartbeat_seconds=0.02, queue_limits=QueueLimits(cold_start_timeout=0.1)
        ) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        client = await gateway.start_request(chat())
        await first_line(client)
        rest = await client.reader.readuntil(b"0\r\n\r\n")

        assert b'{"error":"the server of model one failed: no replica became ready' in rest


async def test_a_stream_whose_server_dies_ends_with_an_error() -> None:
    async with FakeLlama(1, die) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(chat())
        await first_line(client)
        await llama.proceed(0)
        rest = await client.reader.readuntil(b"0\r\n\r\n")
        await gateway.wait_idle()

        assert b'{"error":"the server of model one failed: ' in rest
        assert gateway.access_log()[0]["outcome"] == "aborted"


async def test_a_stream_that_stalls_ends_with_an_error(clock: SteppedLoop) -> None:
    async with (
        FakeLlama(1, die) as llama,
        run_gateway({"timeouts": {"idleSeconds": 30}}, one=llama, test_seconds=1000) as gateway,
    ):
        client = await gateway.start_request(chat())
        await first_line(client)
        await clock.advance(31)
        rest = await client.reader.readuntil(b"0\r\n\r\n")

        assert b"no byte for 30 s" in rest


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_server_that_dies_before_the_response_results_in_502(streamed: bool) -> None:
    async def close(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, close) as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(chat(stream=streamed))

        assert response.status == 502
        assert "failed to respond" in error(response)


@pytest.mark.parametrize(
    "events", [[], ["{"], ["[1]"], ['{"error":{"message":"context is full"}}'], ["x" * 2_000_000]]
)
async def test_an_invalid_stream_is_an_error(events: list[str]) -> None:
    async def send(call: Call) -> None:
        await call.send_head()
        for each in events:
            await call.send_event(each)
        await call.end()

    async with FakeLlama(1, send) as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(chat())

        assert response.status == 502
        assert "the server of model one failed to respond" in error(response)


async def test_errors_of_a_server_have_ollamas_format_and_their_status() -> None:
    async def fail(call: Call) -> None:
        await call.send_json({"error": {"message": "too long", "code": 400}}, "400 Bad Request")

    async def fail_with_text(call: Call) -> None:
        await call.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nno")

    async with (
        FakeLlama(1, fail) as one,
        FakeLlama(1, fail_with_text) as two,
        run_gateway(one=one, two=two) as gateway,
    ):
        first = await gateway.request(chat())
        second = await gateway.request(chat(model="two"))

        assert (first.status, error(first)) == (400, "too long")
        assert (second.status, error(second)) == (500, "the server responded with status 500")
        assert second.headers["retry-after"] == "7"


async def test_embeddings_are_translated() -> None:
    async def embed(call: Call) -> None:
        await call.send_json(
            {"usage": {"prompt_tokens": 5}, "data": [{"embedding": [1, 2.5]}, {"embedding": [3]}]}
        )

    async with FakeLlama(1, embed) as llama, run_gateway(one=llama) as gateway:
        body = json.dumps({"model": "one", "input": ["a", "b"]}).encode()
        [tree] = lines(await gateway.request(post("/api/embed", body)))
        failed = await gateway.request(post("/api/embed", b'{"model":"one","input":7}'))

        assert tree["embeddings"] == [[1, 2.5], [3]]
        assert tree["prompt_eval_count"] == 5
        assert failed.status == 400


async def test_a_model_is_loaded_by_a_request_without_messages() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        [tree] = lines(await gateway.request(chat(messages=[])))

        assert (tree["done"], tree["done_reason"]) == (True, "load")
        assert llama.calls[0].path == "/tokenize"


async def test_models_are_listed_shown_and_found_with_latest() -> None:
    async with FakeLlama() as llama, run_gateway({"aliases": {"z": "a"}}, a=llama) as gateway:
        at_zero = server_manifest("b", alias="org/b:q4", state=status("True", "ScaledToZero"))
        gateway.set_servers(server_manifest("a"), at_zero)
        tags = (await gateway.json("/api/tags"))["models"]
        running = (await gateway.json("/api/ps"))["models"]
        shown = await gateway.request(post("/api/show", b'{"model":"z:latest"}'))
        unknown = await gateway.request(post("/api/show", b'{"name":"c:latest"}'))

        assert [each["name"] for each in tags] == ["a:latest", "org/b:q4", "z:latest"]
        assert tags[0]["modified_at"] == "2026-01-02T03:04:05Z"
        assert len(tags[0]["digest"]) == 64
        assert [each["model"] for each in running] == ["a:latest", "z:latest"]
        assert json.loads(shown.body)["details"]["format"] == "gguf"
        assert unknown.status == 404
        assert error(unknown).startswith("the model 'c:latest' does not exist; models: a,")


async def test_only_the_models_of_a_key_are_listed() -> None:
    spec = {"apiKeys": {"models": {"ann": ["one"]}}}
    async with (
        FakeLlama(1, respond) as llama,
        run_gateway(spec, keys=two_keys(), one=llama, two=llama) as gateway,
    ):
        listed = await gateway.json("/api/tags", ANN)
        other = await gateway.request(chat(ANN, model="two", stream=False))
        without = await gateway.request(get("/api/tags"))
        sent = await gateway.request(chat(ANN, stream=False))

        assert [each["name"] for each in listed["models"]] == ["one:latest"]
        assert other.status == 404
        assert without.status == 401
        assert "API key required" in error(without)
        assert sent.status == 200
        assert "key-of-ann" not in repr(llama.calls[0].headers)


@pytest.mark.parametrize(
    ("request_", "status_", "message"),
    [
        (post("/api/pull", b'{"model":"a"}'), 501, "each is a LlamaServer"),
        (post("/api/push", b"{}"), 501, "each is a LlamaServer"),
        (post("/api/create", b"{}"), 501, "each is a LlamaServer"),
        (post("/api/copy", b"{}"), 501, "each is a LlamaServer"),
        (get("/api/delete", method="DELETE"), 501, "each is a LlamaServer"),
        (get("/api/blobs/sha256:1"), 501, "each is a LlamaServer"),
        (get("/api/other"), 404, "path /api/other not found"),
        (get("/api/"), 404, "path /api/ not found"),
        (get("/api/chat"), 405, "expected POST"),
        (post("/api/tags"), 405, "expected GET"),
        (post("/api/chat", b"no JSON"), 400, "not a JSON object"),
        (post("/api/chat", b'{"model":7}'), 400, "model must be a string"),
        (post("/api/chat", b'{"model":"a","model":"b"}'), 400, "several model fields"),
        (post("/api/chat", b"[" * 10_000), 400, "nested more than"),
        (post("/api/chat", b'{"model":"%s"}' % (b"x" * 1_000_000)), 404, "does not exist"),
        (post("/api/chat", b"{}", "Content-Encoding: gzip"), 415, "Content-Encoding"),
        (post("/api/chat", b'{"messages":7}'), 400, "messages must be a list"),
    ],
)
async def test_errors_have_ollamas_format(request_: bytes, status_: int, message: str) -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(request_)

        assert response.status == status_
        assert message in error(response)
        assert len(response.body) < 1000
        assert not llama.calls


async def test_a_browser_may_ask_for_each_path() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        for path in ("/api/tags", "/api/chat"):
            preflight = await gateway.request(
                get(path, "Origin: http://example.com", method="OPTIONS")
            )
            assert preflight.status == 204
        listed = await gateway.request(get("/api/tags", "Origin: http://example.com"))
        assert listed.headers["access-control-allow-origin"] == "http://example.com"


async def test_an_image_of_20_megabytes_is_forwarded_as_it_is() -> None:
    image = "iVBORw0KGgo" + "A" * 20_000_000
    body = json.dumps({"messages": [{**USER[0], "images": [image]}], "model": "one"}).encode()
    async with (
        FakeLlama(1, respond) as llama,
        run_gateway(one=llama) as gateway,
        await gateway.connect() as client,
    ):
        await client.send(post("/api/chat", body))
        await llama.wait_calls(1)

        assert len(llama.calls[0].body) > 20_000_000
        assert f"data:image/png;base64,{image[:30]}".encode() in llama.calls[0].body


async def test_a_client_that_reads_slowly_slows_the_server_down() -> None:
    sent = 0

    async def endless(call: Call) -> None:
        nonlocal sent
        await call.send_head()
        while True:
            await call.send_event(event("x" * 10_000))
            sent += 10_000

    async with FakeLlama(1, endless) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(chat())
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)

        assert gateway.client_server.listener.budget.buffered < 1_000_000
        assert sent < 30_000_000  # the kernel buffers some of it
        client.reset()
        await gateway.wait_idle()


async def test_a_client_that_disconnects_ends_the_request() -> None:
    async with FakeLlama(1, never_respond) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(chat())
        await llama.wait_calls(1)
        client.reset()
        await llama.calls[0].disconnected.wait()
        await gateway.wait_idle()
        assert gateway.access_log()[0]["outcome"] == "client_disconnected"
