"""Responses that began with SSE keep-alive comments, whose status is 200 whatever follows."""

import json

import pytest

from balancer_harness import run_balancer
from election_harness import introduce
from fake_llama import Call, FakeLlama, Script, stream_two_events
from queued_stream import (
    HEARTBEAT_SECONDS,
    STREAM,
    TWO_EVENTS,
    queued_stream,
    read_comments,
    read_events,
    serve,
)
from raw_http import post
from slotkeeper.scheduling import QueueLimits
from sse import events
from wait_until import until


def respond(tree: object, status: str, *, indent: int | None = None) -> Script:
    body = json.dumps(tree, indent=indent).encode()

    async def script(call: Call) -> None:
        await call.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return script


@pytest.mark.parametrize("framing", ["Content-Length: 25", "Connection: close"])
async def test_a_stream_without_chunks_is_sent_in_chunks(framing: str) -> None:
    async def stream(call: Call) -> None:
        await call.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; x=y\r\n{framing}\r\n\r\n".encode()
        )
        await call.write(b"data: first\n\n")
        await call.proceed.wait()
        await call.write(b"data: last\n\n")
        if framing == "Connection: close":
            call.writer.close()

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = stream
        assert await serve(llama, client) == TWO_EVENTS
        await balancer.wait_idle()


async def test_an_error_response_of_the_replica_is_the_last_event() -> None:
    error = {"code": 400, "message": "bad grammar", "type": "invalid_request_error"}
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = respond({"error": error}, "400 Bad Request")
        await llama.proceed(0)
        (event,) = await read_events(client)
        await balancer.wait_idle()
        line = balancer.access_log()[1]

    assert (event.name, json.loads(event.data)) == ("", {"error": error})
    assert (line["status"], line["outcome"]) == (200, "completed")


async def test_errors_on_anthropics_route_are_named_events() -> None:
    error = {"message": "bad grammar", "type": "invalid_request_error"}
    async with (
        FakeLlama(1, stream_two_events) as llama,
        queued_stream(llama, STREAM, "/v1/messages") as (_, client),
    ):
        llama.script = respond({"error": error}, "400 Bad Request")
        await llama.proceed(0)
        (event,) = await read_events(client)

    assert event.name == "error"
    assert json.loads(event.data) == {"type": "error", "error": error}


async def test_the_balancers_errors_on_anthropics_route_have_its_types() -> None:
    limits = QueueLimits(cold_start_timeout=0.1)
    async with run_balancer(heartbeat_seconds=0.02, queue_limits=limits) as balancer:
        rejected = await balancer.request(post("/v1/messages", b"{}"))
        async with await balancer.start_request(post("/v1/messages", STREAM)) as client:
            await client.reader.readuntil(b"\r\n\r\n")
            (event,) = await read_events(client)

    assert rejected.status == 503
    assert "retry-after" in rejected.headers
    assert event.name == "error"
    for tree in (json.loads(rejected.body), json.loads(event.data)):
        assert tree["type"] == "error"
        error = tree["error"]
        assert (error["type"], error["code"]) == ("overloaded_error", "cold_start_timeout")


async def test_a_response_that_is_no_stream_is_one_event() -> None:
    tree = {"content": "hello"}
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (_, client):
        llama.script = respond(tree, "200 OK", indent=2)
        await llama.proceed(0)
        (event,) = await read_events(client)

    assert (event.name, json.loads(event.data)) == ("", tree)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        ("500 Oops", b"<h1>data: oops\n\ndata: x</h1>", "<h1>data: oops\n\ndata: x</h1>"),
        ("404 Not Found", b"", "replica responded with status 404"),
        ("500 Oops", b"[]", "[]"),
        ("500 Oops", b"\xff", "\ufffd"),
        ("200 OK", b"x" * 5_000_000, "response is too large for one event"),
    ],
)
async def test_any_other_response_is_an_error_event_that_clients_can_parse(
    status: str, body: bytes, message: str
) -> None:
    async def script(call: Call) -> None:
        await call.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        await call.write(body)

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = script
        await llama.proceed(0)
        (event,) = await read_events(client)
        await balancer.wait_idle()

    assert json.loads(event.data)["error"]["message"] == message


async def test_a_queue_timeout_is_an_error_event() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        queued_stream(llama, queue_limits=QueueLimits(queue_timeout=0.1)) as (balancer, client),
    ):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await client.reader.readuntil(b"\r\n")
        await until(lambda: len(balancer.proxy.active) == 1)
        (line,) = balancer.access_log()

    (event,) = events(body)
    assert json.loads(event.data)["error"]["code"] == "queue_timeout"
    assert (line["status"], line["outcome"]) == (200, "timed_out")
    assert line["keepalives"] >= 2


async def test_a_request_that_crashes_its_replica_ends_with_an_error_event() -> None:
    async def crash(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = crash
        await llama.proceed(0)
        received = await read_events(client)
        await balancer.wait_idle()
        line = balancer.access_log()[1]

    codes = [json.loads(event.data)["error"]["code"] for event in received]
    assert codes == ["replica_failed"]
    assert (line["status"], line["outcome"], line["attempts"]) == (200, "failed", 1)


@pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 O"])
async def test_a_response_broken_off_in_its_head_is_an_error_event(head: bytes) -> None:
    async def break_off(call: Call) -> None:
        await call.write(head)
        call.writer.close()

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = break_off
        await llama.proceed(0)
        (event,) = await read_events(client)
        await balancer.wait_idle()

    assert json.loads(event.data)["error"]["code"] == "replica_failed"


async def test_a_response_broken_off_that_is_no_stream_is_an_error_event() -> None:
    async def break_off(call: Call) -> None:
        await call.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{")
        call.writer.close()

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = break_off
        await llama.proceed(0)
        (event,) = await read_events(client)
        await balancer.wait_idle()

    assert json.loads(event.data)["error"]["code"] == "replica_failed"


async def test_a_stream_broken_off_is_aborted() -> None:
    async def break_off(call: Call) -> None:
        await call.send_head()
        await call.send_event("half")
        await call.proceed.wait()
        call.reset()

    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        llama.script = break_off
        await llama.proceed(0)
        await llama.proceed(1)
        received = await client.reader.read()
        await balancer.wait_idle()

    assert received.endswith(b"c\r\ndata: half\n\n\r\n")
    assert balancer.access_log()[1]["outcome"] == "aborted"


async def test_a_retry_before_the_first_byte_continues_in_the_same_response() -> None:
    async def end(call: Call) -> None:
        # On the kept connection, which does not count as an attempt, and on a new one.
        if len(llama.calls) == 3:
            balancer.terminate(llama, other)
        call.reset()

    async with (
        FakeLlama(1, stream_two_events) as llama,
        FakeLlama(1, stream_two_events) as other,
        queued_stream(llama) as (balancer, client),
    ):
        llama.script = end
        await llama.proceed(0)
        await other.proceed(0)
        assert await read_events(client) == TWO_EVENTS
        await balancer.wait_idle()
        line = balancer.access_log()[1]

    assert (line["attempts"], line["outcome"]) == (2, "completed")


async def test_no_compression_is_requested_from_the_replica_once_the_head_is_sent() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        queued_stream(llama, STREAM, "/completion", "Accept-Encoding: gzip, br", "Baggage: 1") as (
            _,
            client,
        ),
    ):
        assert await serve(llama, client) == TWO_EVENTS

    assert "accept-encoding" not in llama.calls[1].headers
    assert llama.calls[1].headers["baggage"] == "1"


async def test_a_draining_balancer_closes_the_connection_after_the_stream() -> None:
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        balancer.client_server.drain()
        assert await serve(llama, client) == TWO_EVENTS
        assert await client.at_end()


async def test_a_request_relayed_after_comments_gets_the_rest_from_the_leader() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as leader,
        run_balancer(heartbeat_seconds=HEARTBEAT_SECONDS) as standby,
        await leader.start_request(post("/completion")),
    ):
        standby.proxy.become_standby(None)
        async with await standby.start_request(post("/completion", STREAM)) as client:
            await client.reader.readuntil(b"\r\n\r\n")
            await read_comments(client, 2)
            proof = introduce(standby, leader)
            standby.proxy.become_standby(f"127.0.0.1:{leader.port}", proof)
            await until(lambda: leader.dispatcher.queued == 1)
            assert not standby.proxy.keepalive._due
            await read_comments(client, 3)
            assert await serve(llama, client) == TWO_EVENTS
        await standby.wait_idle()
        (line,) = standby.access_log()

    assert (line["relayed"], line["outcome"]) == (True, "completed")
    assert line["keepalives"] >= 2
