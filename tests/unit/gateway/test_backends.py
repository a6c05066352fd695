"""Requests for the models of external backends."""

import asyncio
import json
from pathlib import Path

import pytest

from external_backends import (
    CHAT,
    GPT,
    KEY,
    SPEC,
    WITH_KEY,
    backend,
    network_of,
    responds,
    secrets_in,
)
from fake_llama import Call, FakeLlama, Script, echo, never_respond, send_garbage, stream_two_events
from raw_http import post
from running_batches import Port
from running_gateway import ANN, BOB, PUBLIC, Network, run_gateway, two_keys
from slotkeeper.gateway.page_models import page_models
from stepped_loop import SteppedLoop
from wait_until import until


async def test_a_request_is_sent_with_the_backends_path_key_and_model(tmp_path: Path) -> None:
    async with (
        FakeLlama() as server,
        run_gateway(
            WITH_KEY, keys=two_keys(), net=network_of(server), secrets=secrets_in(tmp_path)
        ) as gateway,
    ):
        await until(lambda: gateway.gateway.backends.secrets._keys)
        response = await gateway.request(post(CHAT, b'{"model":"gpt","x":1}', ANN, "Cookie: a=b"))

        assert response.status == 200
        (call,) = server.calls
        assert (call.method, call.path) == ("POST", "/api/v1/chat/completions")
        assert call.body == b'{"model":"gpt-2026","x":1}'
        assert call.headers == {
            "host": "up.example",
            "accept-encoding": "identity",
            "user-agent": "slotkeeper",
            "via": "1.1 slotkeeper",
            "authorization": f"Bearer {KEY}",
            "content-length": "26",
        }
        await gateway.wait_idle()
        (line,) = gateway.access_log()
        assert (line["model"], line["server"], line["outcome"]) == ("gpt", "up", "completed")
        assert gateway.metric("backend_responses_total", backend="up", code="200") == 1
        labels = {"model": "gpt", "key": "ann", "outcome": "completed", "code": "200"}
        assert gateway.metric("requests_total", **labels) == 1


async def test_gateways_that_are_backends_of_each_other_do_not_forward_for_ever() -> None:
    net = Network()
    spec = {"externalBackends": [backend(url="http://up.example/v1", models=[{"name": "gpt"}])]}
    async with run_gateway(spec, net=net) as gateway:
        net.servers[PUBLIC, 80] = Port(gateway.port)

        response = await gateway.request(post("/v1/completions", GPT, "Via: 1.0 front"))

        assert (response.status, response.error_code) == (508, "loop_detected")
        assert len(net.dialed) == 3
        assert not gateway.gateway.backends.pause("up")


async def test_a_model_is_inserted_where_the_path_names_it() -> None:
    async with FakeLlama() as server, run_gateway(SPEC, net=network_of(server)) as gateway:
        path = f"/models/gpt{CHAT}"
        assert (await gateway.request(post(path, b'{"messages":[]}'))).status == 200
        assert server.calls[0].body == b'{"model":"gpt-2026","messages":[]}'


async def test_a_stream_passes_through_and_the_connection_is_kept() -> None:
    async with (
        FakeLlama(1, stream_two_events) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        for number in range(2):
            client = await gateway.start_request(post(CHAT, GPT))
            first = await client.reader.readuntil(b"first\n\n\r\n")
            assert b"Server:" not in first
            await server.proceed(number)
            assert (await client.reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")

        assert server.connections == 1


async def test_models_of_backends_are_listed_for_the_keys_that_may_use_them() -> None:
    spec = {
        **SPEC,
        "aliases": {"best": "gpt"},
        "apiKeys": {"models": {"bob": ["one"]}},
    }
    async with (
        FakeLlama() as one,
        FakeLlama() as server,
        run_gateway(spec, keys=two_keys(), net=network_of(server), one=one) as gateway,
    ):
        listed = await gateway.json("/v1/models", ANN)
        owners = {each["id"]: (each["owned_by"], each["status"]) for each in listed["data"]}
        assert owners == {
            "best": ("up", {"value": "loaded"}),
            "gpt": ("up", {"value": "loaded"}),
            "one": ("slotkeeper", {"value": "loaded"}),
        }
        assert [each["id"] for each in (await gateway.json("/v1/models", BOB))["data"]] == ["one"]
        response = await gateway.request(post(CHAT, GPT, BOB))
        assert (response.status, response.error_code) == (404, "model_not_found")
        assert "gpt" not in json.loads(response.body)["error"]["message"].replace("'gpt'", "")


async def test_a_server_comes_before_a_backend_with_its_models_name() -> None:
    spec = {"externalBackends": [backend(models=[{"name": "one"}])]}
    async with (
        FakeLlama() as one,
        FakeLlama() as server,
        run_gateway(spec, net=network_of(server), one=one) as gateway,
    ):
        assert (await gateway.request(post(CHAT, b'{"model":"one"}'))).status == 200
        assert (len(one.calls), len(server.calls)) == (1, 0)


@pytest.mark.parametrize("path", ["/completion", "/tokenize", "/chat/completions", "/embeddings"])
async def test_paths_of_llama_server_are_not_sent_to_a_backend(path: str) -> None:
    async with FakeLlama() as server, run_gateway(SPEC, net=network_of(server)) as gateway:
        response = await gateway.request(post(path, GPT))
        assert (response.status, response.error_code) == (404, "path_not_supported")
        assert server.calls == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"401 Unauthorized", "backend_unauthorized"),
        (b"403 Forbidden", "backend_unauthorized"),
        (b"407 Proxy Authentication Required", "backend_unauthorized"),
        (b"302 Found\r\nLocation: http://127.0.0.1/", "backend_redirected"),
        (b"307 Temporary Redirect\r\nLocation: http://169.254.169.254/", "backend_redirected"),
        (b"304 Not Modified", "backend_redirected"),
    ],
)
async def test_responses_about_the_gateway_do_not_pass_through(status: bytes, code: str) -> None:
    script = responds(status + b"\r\nWWW-Authenticate: Basic", b"wrong key sk-1")
    async with FakeLlama(1, script) as server:
        net = network_of(server)
        async with run_gateway(SPEC, net=net) as gateway:
            response = await gateway.request(post(CHAT, GPT))

            assert (response.status, response.error_code) == (502, code)
            assert b"sk-1" not in response.raw
            assert "www-authenticate" not in response.headers
            assert net.dialed == [(PUBLIC, 80)]
            (line,) = gateway.access_log()
            assert (line["outcome"], line["code"]) == ("failed", code)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"429 Too Many Requests", b"500 Oops"])
async def test_other_errors_pass_through_without_the_key(status: bytes, tmp_path: Path) -> None:
    script = responds(
        status + b"\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nSet-Cookie: a=b",
        f"no such thing: {KEY}".encode(),
    )
    async with (
        FakeLlama(1, script) as server,
        run_gateway(WITH_KEY, net=network_of(server), secrets=secrets_in(tmp_path)) as gateway,
    ):
        await until(lambda: gateway.gateway.backends.secrets._keys)
        response = await gateway.request(post(CHAT, GPT, "Origin: https://a"))

        assert response.status == int(status[:3])
        assert response.body == b"no such thing: [redacted]"
        assert "set-cookie" not in response.headers
        assert response.headers["retry-after"] == "7"
        assert response.headers["access-control-allow-origin"] == "https://a"


async def reset_at_once(call: Call) -> None:
    call.reset()


async def endless_head(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        await call.write(b"X-A: " + b"a" * 1000 + b"\r\n")


async def endless_error(call: Call) -> None:
    await call.write(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        await call.write(b"3e8\r\n" + b"a" * 1000 + b"\r\n")


async def short_error(call: Call) -> None:
    await call.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nshort")
    call.writer.close()


@pytest.mark.parametrize(
    "script",
    [
        send_garbage,
        reset_at_once,
        endless_head,
        endless_error,
        short_error,
        responds(b"400 Bad\r\nContent-Encoding: gzip", b"\x1f\x8b"),
        responds(b"101 Switching Protocols\r\nUpgrade: websocket"),
        responds(b"200 OK\r\nContent-Length: 99"),
    ],
)
async def test_a_backend_that_lies_results_in_502(script: Script) -> None:
    async with (
        FakeLlama(1, script) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        response = await gateway.request(post(CHAT, GPT))

        assert (response.status, response.error_code) == (502, "backend_failed")
        assert len(server.calls) == 1
        await gateway.wait_idle()


async def test_a_response_shorter_than_its_length_ends_the_clients_connection() -> None:
    async def short(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        call.writer.close()

    async with (
        FakeLlama(1, short) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        with pytest.raises(asyncio.IncompleteReadError):
            await gateway.request(post(CHAT, GPT))
        await gateway.wait_idle()
        assert gateway.access_log()[0]["outcome"] == "aborted"


async def test_a_backend_that_stalls_results_in_504(clock: SteppedLoop) -> None:
    spec = {"externalBackends": [backend(firstByteSeconds=7)]}
    async with (
        FakeLlama(1, never_respond) as server,
        run_gateway(spec, net=network_of(server)) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, GPT))
        (call,) = await server.wait_calls(1)
        await clock.advance(7)
        response = await client.response()

        assert (response.status, response.error_code) == (504, "backend_timeout")
        await call.disconnected.wait()
        assert gateway.access_log()[0]["outcome"] == "timed_out"
        assert gateway.metric("backend_responses_total", backend="up", code="none") == 1


async def test_an_error_that_does_not_end_results_in_502(clock: SteppedLoop) -> None:
    async def drip(call: Call) -> None:
        await call.write(b"HTTP/1.1 429 No\r\nContent-Length: 100\r\n\r\n")
        await call.disconnected.wait()

    async with (
        FakeLlama(1, drip) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, GPT))
        await server.wait_calls(1)
        await until(lambda: next(iter(gateway.gateway.active))._error)
        await clock.advance(10)

        assert (await client.response()).error_code == "backend_failed"


async def test_a_backend_that_fails_repeatedly_is_paused_and_tried_again(
    clock: SteppedLoop,
) -> None:
    async with (
        FakeLlama(1, responds(b"502 Oops")) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        for _ in range(3):
            assert (await gateway.request(post(CHAT, GPT))).status == 502
        response = await gateway.request(post(CHAT, GPT))
        assert (response.status, response.error_code) == (503, "backend_paused")
        assert response.headers["retry-after"] == "1"
        assert len(server.calls) == 3
        assert gateway.metric("backend_paused", backend="up") == 1
        (listed,) = (await gateway.json("/v1/models"))["data"]
        assert listed["status"] == {"value": "unloaded", "failed": True}

        server.script = echo
        await clock.advance(1)
        assert (await gateway.request(post(CHAT, GPT))).status == 200
        assert gateway.metric("backend_paused", backend="up") == 0


async def test_requests_that_a_backend_cannot_process_do_not_pause_it_for_others() -> None:
    async with (
        FakeLlama(1, responds(b"500 Oops")) as server,
        run_gateway(SPEC, keys=two_keys(), net=network_of(server)) as gateway,
    ):
        for _ in range(9):
            assert (await gateway.request(post(CHAT, GPT, ANN))).status == 500

        server.script = echo
        assert (await gateway.request(post(CHAT, GPT, BOB))).status == 200


async def test_a_large_body_passes_with_another_model_and_is_freed() -> None:
    text = "x" * 5_000_000
    body = json.dumps({"messages": [text] * 4, "model": "gpt"}).encode()
    async with (
        FakeLlama(1, stream_two_events) as server,
        run_gateway(SPEC, net=network_of(server)) as gateway,
    ):
        client = await gateway.connect()
        sending = asyncio.create_task(client.send(post(CHAT, body)))
        await server.wait_calls(1)
        await sending
        (request,) = gateway.gateway.active
        await until(lambda: request.exchange.request.size == 0)
        assert request._parts == ()
        assert json.loads(server.calls[0].body) == {"messages": [text] * 4, "model": "gpt-2026"}


async def test_the_page_shows_no_models_of_backends() -> None:
    async with (
        FakeLlama() as server,
        FakeLlama() as one,
        run_gateway(SPEC, net=network_of(server), one=one) as gateway,
    ):
        names = gateway.gateway._catalog.names(None)
        shown = page_models(names, lambda _: None, lambda _: 0.0)

        assert [each.name for each in shown] == ["one"]
