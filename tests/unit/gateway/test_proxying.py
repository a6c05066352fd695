"""What happens to a request on its way, and to its response."""

import asyncio
import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, Script, never_respond, send_garbage, stream_two_events
from raw_http import get, post
from running_gateway import run_gateway, server_manifest
from slotkeeper.gateway import request
from stepped_loop import SteppedLoop
from wait_until import until

CHAT = "/v1/chat/completions"
USAGE = b'{"model":"one"}'


async def start_stream(call: Call) -> None:
    """Stream "first", then fail in the way that the test chooses."""
    await call.send_head()
    await call.send_event("first")
    await call.proceed.wait()
    call.reset()
    await call.disconnected.wait()


async def test_a_stream_passes_through_byte_by_byte() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        first = await client.reader.readuntil(b"first\n\n\r\n")
        assert b"Transfer-Encoding: chunked" in first
        assert b"Server: llama.cpp" in first
        assert b"Keep-Alive" not in first

        await llama.proceed(0)
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"c\r\ndata: last\n\n\r\n0\r\n\r\n"
        await gateway.wait_idle()
        (line,) = gateway.access_log()
        assert (line["outcome"], line["model"], line["server"]) == ("completed", "one", "one")
        assert line["bytes_out"] == 40
        assert line["first_byte_seconds"] <= line["duration_seconds"]


async def test_a_client_of_http_1_0_gets_the_content_without_chunks() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT, version="1.0"))
        await llama.proceed(0)
        response = await client.response()

        assert response.body == b"data: first\n\ndata: last\n\n"
        assert await client.at_end()


async def test_connections_are_reused_on_both_sides() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        await until(lambda: llama.connections == 2)  # of /v1/models and /props
        async with await gateway.connect() as client:
            for _ in range(3):
                assert (await client.request(post(CHAT))).status == 200

        assert llama.connections == 3


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        async with await gateway.connect() as client:
            names = ["one", "two", "missing", "one"]
            await client.send(b"".join(post(CHAT, b'{"model":"%s"}' % n.encode()) for n in names))
            responses = [await client.response() for _ in names]

        assert [each.status for each in responses] == [200, 200, 404, 200]
        assert [json.loads(each.body).get("echo") for each in responses] == [
            '{"model":"one"}',
            '{"model":"two"}',
            None,
            '{"model":"one"}',
        ]


async def test_only_headers_that_llama_server_reads_are_forwarded() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        sent = ("Cookie: a=b", "Accept: nonsense", "X-Request-Id: 7", "Authorization: Bearer own")
        await gateway.request(
            post(CHAT, b"{}", "X-Priority: 3", "X-Preemptible: true", "Origin: https://a", *sent)
        )

        # Without API keys of the gateway, those of the server apply.
        assert llama.calls[0].headers == {
            "host": "test",
            "x-request-id": "7",
            "authorization": "Bearer own",
            "x-preemptible": "true",
            "x-priority": "3",
            "content-length": "2",
        }


async def test_the_servers_request_is_aborted_when_the_client_disconnects() -> None:
    async with FakeLlama(1, never_respond) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        (call,) = await llama.wait_calls(1)
        await client.close()
        await call.disconnected.wait()

        await gateway.wait_idle()
        (line,) = gateway.access_log()
        assert (line["outcome"], line["status"]) == ("client_disconnected", None)
        labels = {"model": "one", "key": "", "outcome": "client_disconnected", "code": "none"}
        assert gateway.metric("requests_total", **labels) == 1


async def test_a_server_that_ends_in_mid_stream_ends_the_clients_connection() -> None:
    async with FakeLlama(1, start_stream) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        await client.reader.readuntil(b"first\n\n\r\n")
        await llama.proceed(0)
        # No last chunk: the client notices that the response is incomplete.
        assert await client.at_end()

        await gateway.wait_idle()
        assert gateway.access_log()[0]["outcome"] == "aborted"


async def reset_at_once(call: Call) -> None:
    call.reset()


@pytest.mark.parametrize("script", [send_garbage, reset_at_once])
async def test_a_server_that_fails_before_the_response_results_in_502(script: Script) -> None:
    async with FakeLlama(1, script) as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(post(CHAT))

        assert (response.status, response.error_code) == (502, "server_failed")
        assert len(llama.calls) == 1
        assert gateway.access_log()[0]["outcome"] == "failed"


async def test_a_deleted_server_is_unknown_at_once_but_completes_its_requests() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT, USAGE))
        await client.reader.readuntil(b"first\n\n\r\n")
        gateway.set_servers()
        assert (await gateway.request(post(CHAT, USAGE))).error_code == "model_not_found"

        await llama.proceed(0)
        assert await client.reader.readuntil(b"0\r\n\r\n")


async def test_a_refused_connection_is_tried_again_once(
    clock: SteppedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a busy machine may take to start the server again.
    monkeypatch.setattr(request, "RECONNECT_SECONDS", 5)
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        await until(lambda: llama.health_polls + llama.connections)
        await llama.stop()
        client = await gateway.start_request(post(CHAT))
        await until(lambda: gateway.metric("request_retries_total", model="one") == 1)
        await llama.start()
        await clock.advance(5, step=1)

        assert (await client.response()).status == 200
        await gateway.wait_idle()
        assert gateway.access_log()[0]["retried"] is True


async def test_a_server_without_a_port_results_in_502_with_its_state() -> None:
    llama = FakeLlama()
    await llama.start()
    await llama.stop()
    async with run_gateway(one=llama) as gateway:
        response = await gateway.request(post(CHAT))

        assert (response.status, response.error_code) == (502, "server_unreachable")
        assert "model one, which is Ready" in response.body.decode()
        await gateway.wait_idle()


async def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    async def close_after_first(call: Call) -> None:
        if len(llama.calls) == 2:
            call.close()  # as if it had been closed just before the request arrived
        await call.send_json({})

    async with FakeLlama(1, close_after_first) as llama, run_gateway(one=llama) as gateway:
        async with await gateway.connect() as client:
            assert (await client.request(post(CHAT))).status == 200
            assert (await client.request(post(CHAT, b'{"a":1}'))).status == 200

        assert [call.body for call in llama.calls] == [b"{}", b'{"a":1}', b'{"a":1}']


async def test_a_kept_connection_that_fails_later_is_no_reason_to_send_again(
    clock: SteppedLoop,
) -> None:
    async def crash_on_second(call: Call) -> None:
        if len(llama.calls) == 2:
            await call.proceed.wait()
            call.close()
        await call.send_json({})

    async with FakeLlama(1, crash_on_second) as llama, run_gateway(one=llama) as gateway:
        async with await gateway.connect() as client:
            await client.request(post(CHAT))
            await client.send(post(CHAT))
            await llama.wait_calls(2)
            await clock.advance(1.2)
            await llama.proceed(1)

            assert (await client.response()).error_code == "server_failed"
        assert len(llama.calls) == 2


async def test_a_body_is_freed_when_it_is_sent() -> None:
    # A balancer may queue the request for minutes.
    content = b'{"a":"%s"}' % (b"x" * 500_000)
    async with FakeLlama(2, never_respond) as llama, run_gateway(one=llama) as gateway:
        budget = gateway.client_server.listener.budget
        client = await gateway.connect()
        await client.send(post(CHAT, content))
        await llama.wait_calls(1)
        await until(lambda: budget.buffered < 10_000)
        assert llama.calls[0].body == content


async def test_no_response_in_time_results_in_504(clock: SteppedLoop) -> None:
    spec = {"timeouts": {"firstByteSeconds": 5}}
    async with FakeLlama(1, never_respond) as llama, run_gateway(spec, one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        (call,) = await llama.wait_calls(1)
        await clock.advance(6)
        response = await client.response()

        assert (response.status, response.error_code) == (504, "server_timeout")
        await call.disconnected.wait()
        assert gateway.access_log()[0]["outcome"] == "timed_out"


async def test_a_stream_that_stalls_is_aborted(clock: SteppedLoop) -> None:
    spec = {"timeouts": {"idleSeconds": 5}}
    async with FakeLlama(1, stream_two_events) as llama, run_gateway(spec, one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        await client.reader.readuntil(b"first\n\n\r\n")
        await clock.advance(4)
        assert gateway.gateway.active
        await clock.advance(2)

        assert await client.at_end()
        assert gateway.access_log()[0]["outcome"] == "aborted"
        await llama.calls[0].disconnected.wait()


async def test_a_client_that_reads_slowly_slows_the_server_down() -> None:
    sent = 0

    async def endless(call: Call) -> None:
        nonlocal sent
        await call.send_head()
        while True:
            await call.send_event("x" * 10_000)
            sent += 10_000

    async with FakeLlama(1, endless) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)

        assert gateway.client_server.listener.budget.buffered < 1_000_000
        assert sent < 30_000_000  # the kernel buffers some of it
        client.reset()
        await gateway.wait_idle()


async def test_bodies_of_20_megabytes_pass_with_the_model_at_the_end() -> None:
    content = b'{"prompt":"%s","model":"two"}' % (b"x" * 20_000_000)
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        async with await gateway.connect() as client:
            await client.send(post(CHAT, content))
            await two.wait_calls(1)

        assert two.calls[0].body == content
        await gateway.wait_idle()
        assert gateway.client_server.listener.budget.buffered == 0


async def test_a_client_that_disconnects_while_its_body_is_read_is_forgotten() -> None:
    content = b'{"prompt":"%s","model":"one"}' % (b"x" * 5_000_000)
    async with FakeLlama() as one, run_gateway(one=one) as gateway:
        client = await gateway.connect()
        # Reading it would take a millisecond: the body waits for its turn.
        async with gateway.gateway.read_lock:
            await client.send(post(CHAT, content))
            await until(lambda: gateway.gateway._bodies.reading)
            client.reset()
            await until(lambda: not len(gateway.client_server.listener.connections))
        await until(lambda: not gateway.gateway._bodies.reading)

        assert (one.calls, gateway.gateway.active) == ([], set())


async def test_tokens_are_counted_by_model() -> None:
    async def with_usage(call: Call) -> None:
        await call.send_json({"timings": {"prompt_n": 17, "cache_n": 3, "predicted_n": 5}})

    async with FakeLlama(1, with_usage) as llama, run_gateway(one=llama) as gateway:
        await gateway.request(post(CHAT))
        await gateway.wait_idle()

        for kind, count in (("prompt", 17), ("cached", 3), ("generated", 5)):
            assert gateway.metric("tokens_total", model="one", key="", kind=kind) == count
        line = gateway.access_log()[0]
        assert [line[f"{kind}_tokens"] for kind in ("prompt", "cached", "generated")] == [17, 3, 5]


async def test_through_a_real_balancer_to_a_slot() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        clients = [await gateway.start_request(post(CHAT, USAGE)) for _ in range(2)]
        await until(lambda: balancer.dispatcher.queued == 1)
        for number, client in enumerate(clients):
            await llama.proceed(number)
            response = await client.response()
            assert response.body == b"data: first\n\ndata: last\n\n"
            assert response.headers["x-slotkeeper-queue-position"] == str(number)
        assert llama.max_busy == 1

        cancelled = await gateway.start_request(post(CHAT, USAGE))
        await llama.wait_calls(3)
        await cancelled.close()
        await balancer.wait_idle()


async def test_errors_of_a_balancer_pass_through() -> None:
    async with run_balancer() as balancer, run_gateway(one=balancer) as gateway:
        direct = await balancer.request(get("/slots?fail_on_no_slot=1"))
        routed = await gateway.request(get("/models/one/slots?fail_on_no_slot=1"))
        assert (routed.status, routed.body) == (direct.status, direct.body) == (503, direct.body)


async def test_a_draining_gateway_completes_requests_and_rejects_new_ones() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_gateway(one=llama) as gateway:
        client = await gateway.start_request(post(CHAT))
        drained = asyncio.ensure_future(gateway.gateway.drain(10))
        await until(lambda: gateway.gateway.draining)
        for request in (post(CHAT), get("/health")):
            response = await gateway.request(request)
            assert (response.status, response.error_code) == (503, "shutting_down")
        assert (await gateway.admin_request("/ready")).status == 503
        assert not drained.done()

        await llama.proceed(0)
        assert (await client.response()).status == 200
        assert await drained == 0


async def test_a_changed_timeout_applies_to_new_requests() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        await gateway.request(post(CHAT))
        gateway.configure({"timeouts": {"connectSeconds": 1}})
        assert (await gateway.request(post(CHAT))).status == 200
        gateway.set_servers(server_manifest("one", uid="another"))
        assert (await gateway.request(post(CHAT))).status == 200
