"""Requests that another model serves because the first one cannot."""

import json
from typing import Any

import pytest

from balancer_harness import run_balancer
from external_backends import CHAT, backend, network_of, responds
from fake_llama import Call, FakeLlama, Script, echo, never_respond, stream_two_events
from raw_http import Response, post
from running_gateway import ANN, BOB, run_gateway, server_manifest, status, two_keys
from stepped_loop import SteppedLoop
from wait_until import until

ONE = b'{"model":"one"}'
AT_ZERO = status("True", "ScaledToZero")


def rule(*to: str, on: tuple[str, ...] = ("Full", "Failed", "Timeout", "Waking")) -> dict[str, Any]:
    return {"fallbacks": [{"model": "one", "to": list(to), "when": list(on)}]}


def fails(status_line: bytes, code: str) -> Script:
    body = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    return responds(status_line + b"\r\nContent-Type: application/json\r\nRetry-After: 3", body)


def served(response: Response) -> tuple[int, str | None]:
    return response.status, response.headers.get("x-model-served")


@pytest.mark.parametrize(
    ("line", "code", "case"),
    [
        (b"429 Too Many Requests", "queue_full", "Full"),
        (b"503 Service Unavailable", "queue_timeout", "Full"),
        (b"503 Service Unavailable", "cold_start_timeout", "Waking"),
        (b"503 Service Unavailable", "server_unavailable", "Failed"),
        (b"502 Bad Gateway", "other", "Failed"),
    ],
)
async def test_the_reason_of_an_error_decides(line: bytes, code: str, case: str) -> None:
    async with (
        FakeLlama(1, fails(line, code)) as one,
        FakeLlama() as two,
        run_gateway(rule("two", on=(case,)), one=one, two=two) as gateway,
    ):
        assert served(await gateway.request(post(CHAT, ONE))) == (200, "two")
        assert two.calls[0].body == ONE
        await gateway.wait_idle()
        (line_of_log,) = gateway.access_log()
        assert (line_of_log["model"], line_of_log["server"]) == ("two", "two")
        assert line_of_log["fallback_from"] == "one"
        assert gateway.metric("fallbacks_total", model="one", to="two", reason=case) == 1

        others = {"Full", "Failed", "Timeout", "Waking"} - {case}
        gateway.configure(rule("two", on=tuple(others)))
        response = await gateway.request(post(CHAT, ONE))
        # The error is that of the server.
        assert served(response) == (int(line[:3]), "one")
        assert response.error_code == code
        assert response.headers["retry-after"] == "3"
        assert len(two.calls) == 1


@pytest.mark.parametrize("line", [b"200 OK", b"400 Bad Request", b"422 No", b"500 Oops"])
async def test_other_responses_are_those_of_the_first_model(line: bytes) -> None:
    async with (
        FakeLlama(1, responds(line, b"{}")) as one,
        FakeLlama() as two,
        run_gateway(rule("two"), one=one, two=two) as gateway,
    ):
        assert served(await gateway.request(post(CHAT, ONE))) == (int(line[:3]), "one")
        assert two.calls == []


async def reset_at_once(call: Call) -> None:
    call.reset()


@pytest.mark.parametrize("script", [reset_at_once, fails(b"502 Bad Gateway", "replica_failed")])
async def test_a_request_that_may_have_crashed_a_replica_is_sent_to_backends_only(
    script: Script,
) -> None:
    spec = {**rule("two", "gpt"), "externalBackends": [backend()]}
    async with (
        FakeLlama(1, script) as one,
        FakeLlama() as two,
        FakeLlama() as up,
        run_gateway(spec, net=network_of(up), one=one, two=two) as gateway,
    ):
        assert served(await gateway.request(post(CHAT, ONE))) == (200, "gpt")
        assert (len(two.calls), up.calls[0].body) == (0, b'{"model":"gpt-2026"}')

        gateway.configure(rule("two"))
        assert (await gateway.request(post(CHAT, ONE))).status == 502
        assert two.calls == []


async def test_a_server_without_a_port_is_replaced() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(rule("two"), one=one, two=two) as gateway,
    ):
        await one.stop()
        assert served(await gateway.request(post(CHAT, ONE))) == (200, "two")


async def test_a_server_that_does_not_respond_in_time_is_replaced(clock: SteppedLoop) -> None:
    spec = {**rule("two"), "timeouts": {"firstByteSeconds": 5}}
    async with (
        FakeLlama(1, never_respond) as one,
        FakeLlama() as two,
        run_gateway(spec, one=one, two=two) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, ONE))
        (call,) = await one.wait_calls(1)
        (request,) = gateway.gateway.active
        assert request.exchange.request.size == len(ONE)  # kept for the fallback
        await clock.advance(5)
        await call.disconnected.wait()
        assert served(await client.response()) == (200, "two")
        assert two.calls[0].body == ONE


async def test_nothing_is_replaced_after_the_first_byte() -> None:
    async def breaks(call: Call) -> None:
        await call.send_head()
        await call.send_event("first")
        await call.proceed.wait()
        call.reset()
        await call.disconnected.wait()

    async with (
        FakeLlama(1, breaks) as one,
        FakeLlama() as two,
        run_gateway(rule("two"), one=one, two=two) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, ONE))
        await client.reader.readuntil(b"first\n\n\r\n")
        (request,) = gateway.gateway.active
        assert request.exchange.request.size == 0
        await one.proceed(0)
        assert await client.at_end()
        assert two.calls == []


async def test_the_last_error_is_reported_if_all_fail() -> None:
    spec = {**rule("two", "gpt"), "externalBackends": [backend()]}
    async with (
        FakeLlama(1, fails(b"429 Too Many Requests", "queue_full")) as one,
        FakeLlama(1, fails(b"429 Too Many Requests", "queue_full")) as two,
        FakeLlama(1, responds(b"500 Oops", b"of the provider")) as up,
        run_gateway(spec, net=network_of(up), one=one, two=two) as gateway,
    ):
        response = await gateway.request(post(CHAT, ONE))
        assert served(response) == (500, "gpt")
        assert response.body == b"of the provider"
        assert (len(one.calls), len(two.calls), len(up.calls)) == (1, 1, 1)
        await gateway.wait_idle()


@pytest.mark.parametrize(
    "line", [b"429 Too Many Requests", b"500 Oops", b"401 No", b"302 Found\r\nLocation: /"]
)
async def test_a_backend_is_replaced_by_a_server(line: bytes) -> None:
    fallback = {"model": "gpt", "to": ["one"]}
    spec = {"externalBackends": [backend()], "fallbacks": [fallback]}
    async with (
        FakeLlama(1, responds(line)) as up,
        FakeLlama() as one,
        run_gateway(spec, net=network_of(up), one=one) as gateway,
    ):
        assert served(await gateway.request(post(CHAT, b'{"model":"gpt"}'))) == (200, "one")
        # A request that is at fault itself is not sent again.
        up.script = responds(b"400 Bad Request", b"{}")
        assert (await gateway.request(post(CHAT, b'{"model":"gpt"}'))).status == 400
        assert len(one.calls) == 1


async def test_a_model_at_zero_is_woken_while_the_fallback_serves() -> None:
    async with (
        FakeLlama(1, never_respond) as one,
        FakeLlama() as two,
        run_gateway(rule("two"), keys=two_keys(), one=one, two=two) as gateway,
    ):
        gateway.set_servers(server_manifest("one", state=AT_ZERO), server_manifest("two"))
        for _ in range(3):
            response = await gateway.request(post(CHAT, ONE, ANN, "Content-Type: text/x"))
            assert served(response) == (200, "two")

        # One request wakes it, whatever the number of clients.
        (call,) = await one.wait_calls(1)
        assert (call.path, call.body) == ("/tokenize", b'{"content":""}')
        assert call.headers["authorization"].startswith("Bearer gateway-")
        assert "content-type" not in call.headers
        assert gateway.metric("fallbacks_total", model="one", to="two", reason="Waking") == 3
        gateway.set_servers(server_manifest("one"), server_manifest("two"))
        one.script = echo
        assert served(await gateway.request(post(CHAT, ONE, ANN))) == (200, "one")


async def test_a_real_balancer_without_a_replica_counts_the_wake_as_demand() -> None:
    async with (
        run_balancer() as balancer,
        FakeLlama() as two,
        run_gateway(rule("two"), one=balancer, two=two) as gateway,
    ):
        gateway.set_servers(server_manifest("one", state=AT_ZERO), server_manifest("two"))
        assert served(await gateway.request(post(CHAT, ONE))) == (200, "two")
        await until(lambda: balancer.proxy.has_queued)


async def test_a_key_may_use_the_fallbacks_of_its_models() -> None:
    spec = {**rule("two"), "apiKeys": {"models": {"bob": ["one"]}}}
    async with (
        FakeLlama(1, fails(b"429 Too Many Requests", "queue_full")) as one,
        FakeLlama() as two,
        run_gateway(spec, keys=two_keys(), one=one, two=two) as gateway,
    ):
        assert served(await gateway.request(post(CHAT, ONE, BOB))) == (200, "two")
        assert (await gateway.request(post(CHAT, b'{"model":"two"}', BOB))).status == 404


async def test_a_stream_of_a_fallback_passes_through() -> None:
    async with (
        FakeLlama(1, fails(b"429 Too Many Requests", "queue_full")) as one,
        FakeLlama(1, stream_two_events) as two,
        run_gateway(rule("two"), one=one, two=two) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, ONE))
        await client.reader.readuntil(b"first\n\n\r\n")
        await two.proceed(0)
        assert (await client.reader.readuntil(b"0\r\n\r\n")).endswith(b"last\n\n\r\n0\r\n\r\n")


async def test_a_client_that_disconnects_during_an_error_response_is_forgotten() -> None:
    async def half(call: Call) -> None:
        await call.write(b"HTTP/1.1 429 No\r\nContent-Length: 100\r\n\r\n{")
        await call.disconnected.wait()

    async with (
        FakeLlama(1, half) as one,
        FakeLlama() as two,
        run_gateway(rule("two"), one=one, two=two) as gateway,
    ):
        client = await gateway.start_request(post(CHAT, ONE))
        (call,) = await one.wait_calls(1)
        await client.close()
        await call.disconnected.wait()
        await gateway.wait_idle()
        assert two.calls == []


async def test_a_route_keeps_a_conversation_on_one_model() -> None:
    targets = [{"model": "one", "weight": 1}, {"model": "two", "weight": 1}]
    spec = {"routes": [{"name": "chat", "targets": targets}]}
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(spec, one=one, two=two) as gateway,
    ):
        for session in range(8):
            request = post(CHAT, b'{"model":"chat"}', f"X-Session-Id: {session}")
            used = {served(await gateway.request(request)) for _ in range(2)}
            assert used < {(200, "one"), (200, "two")}
        assert one.calls
        assert two.calls
        listed = await gateway.json("/v1/models")
        assert [each["id"] for each in listed["data"]] == ["chat", "one", "two"]
