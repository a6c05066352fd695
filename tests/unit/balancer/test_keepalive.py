"""SSE keep-alive: which queued requests get comments, and when."""

import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, echo, stream_two_events
from queued_stream import (
    COMMENT,
    HEARTBEAT_SECONDS,
    STREAM,
    TWO_EVENTS,
    queued_stream,
    read_comments,
    serve,
)
from raw_http import post
from slotkeeper.edge.stream_request import SMALL
from slotkeeper.wire.connection import DownstreamConnection
from wait_until import until


async def test_a_queued_streaming_request_gets_a_head_and_comments_until_it_has_a_slot() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        first = await client.reader.readuntil(b"\n\n\r\n")
        await read_comments(client, 2)
        events = await serve(llama, client)
        llama.script = echo
        second_response = await client.request(post("/completion"))
        await balancer.wait_idle()
        lines = balancer.access_log()

    assert head == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"X-Slotkeeper-Queue-Position: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    comment = COMMENT % 1
    assert first == b"%x\r\n%s\r\n" % (len(comment), comment)
    assert events == TWO_EVENTS
    assert second_response.headers["content-type"] == "application/json"
    keepalives = [line["keepalives"] for line in lines]
    assert (keepalives[0], keepalives[2]) == (0, 0)
    assert keepalives[1] >= 3
    assert (lines[1]["status"], lines[1]["outcome"]) == (200, "completed")


async def test_each_comment_has_the_current_position() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion")) as ahead,
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"X-Slotkeeper-Queue-Position: 2\r\n" in head
        assert (await read_comments(client, 1)) == [COMMENT % 2]
        ahead.reset()
        await until(lambda: balancer.dispatcher.queued == 1)
        comments = await read_comments(client, 10)

    assert comments[-1] == COMMENT % 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post("/completion"), id="no stream requested"),
        pytest.param(post("/completion", b'{"a":{"stream":true}}'), id="stream in a nested object"),
        pytest.param(post("/completion", b'{"stream":true'), id="no JSON"),
        pytest.param(post("/v1/embeddings", STREAM), id="embeddings"),
        pytest.param(post("/rerank", STREAM), id="rerankings"),
        pytest.param(post("/tokenize", STREAM), id="tokens"),
        pytest.param(post("/completion", STREAM, version="1.0"), id="HTTP/1.0"),
        pytest.param(
            post("/completion", b'{"a":"%s","b":{"stream":true}}' % (b"x" * SMALL)), id="large"
        ),
    ],
)
async def test_all_other_queued_requests_get_no_comments(request_bytes: bytes) -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(request_bytes) as silent,
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        await client.reader.readuntil(b"\r\n\r\n")
        # The silent one was due before each of these.
        await read_comments(client, 3)
        await llama.proceed(0)
        await llama.proceed(1)
        response = await silent.response()

    assert response.headers["server"] == "llama.cpp"
    assert response.body == b"data: first\n\ndata: last\n\n"


async def test_without_the_option_no_request_gets_comments() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        assert balancer.proxy.keepalive._timer is None
        for number in range(2):
            await llama.proceed(number)
        assert (await client.response()).headers["server"] == "llama.cpp"


async def test_a_slot_before_the_first_comment_leaves_the_response_unchanged() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=60) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        assert balancer.proxy.keepalive._timer
        for number in range(2):
            await llama.proceed(number)
        assert (await client.response()).headers["server"] == "llama.cpp"
        assert not balancer.proxy.keepalive._due


async def test_a_large_body_is_inspected_too() -> None:
    body = json.dumps({"prompt": "x" * SMALL, "stream": True}).encode()
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama, body) as (_, client):
        assert await serve(llama, client) == TWO_EVENTS


async def test_a_request_dispatched_while_its_large_body_is_inspected_gets_no_comment() -> None:
    body = json.dumps({"prompt": "x" * 8 * 2**20, "stream": True}).encode()
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion", body)) as client,
    ):
        await until(lambda: balancer.proxy.keepalive._inspecting)
        balancer.dispatcher.replicas[llama.name].slots = 2
        balancer.proxy.dispatch()
        assert not balancer.proxy.keepalive._inspecting
        for number in range(2):
            await llama.proceed(number)
        assert (await client.response()).headers["server"] == "llama.cpp"


async def test_many_queued_requests_share_one_timer() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        clients = [await balancer.start_request(post("/completion", STREAM)) for _ in range(30)]
        for client in clients:
            await client.reader.readuntil(b"\r\n\r\n")
            await read_comments(client, 2)
        due = balancer.proxy.keepalive._due
        assert len(due) == 30
        assert list(due.values()) == sorted(due.values())


async def test_a_requeued_request_gets_comments_too() -> None:
    async def end(call: Call) -> None:
        llama.loading = True
        llama.script = stream_two_events
        balancer.terminate(llama)
        call.reset()

    async with (
        FakeLlama(1, end) as llama,
        run_balancer(llama, heartbeat_seconds=HEARTBEAT_SECONDS) as balancer,
        await balancer.start_request(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"X-Slotkeeper-Queue-Position: 0\r\n" in head
        await read_comments(client, 2)
        llama.loading = False
        balancer.proxy.set_replicas({llama.name: True})
        assert await serve(llama, client) == TWO_EVENTS


async def test_a_client_that_does_not_read_gets_no_more_comments() -> None:
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        (request,) = (each for each in balancer.proxy.active if each.early)
        connection = request.exchange._channel
        assert isinstance(connection, DownstreamConnection)
        connection.pause_writing()
        sent = request.early.keepalives_sent if request.early else 0
        async with await balancer.start_request(post("/completion", STREAM)) as other:
            await other.reader.readuntil(b"\r\n\r\n")
            await read_comments(other, 3)
        assert request.early
        assert request.early.keepalives_sent == sent
        connection.resume_writing()
        await until(lambda: request.early and request.early.keepalives_sent > sent)
        assert await serve(llama, client) == TWO_EVENTS


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_client_that_disconnects_between_comments_leaves_the_queue(how: str) -> None:
    async with FakeLlama(1, stream_two_events) as llama, queued_stream(llama) as (balancer, client):
        if how == "close":
            client.writer.close()
        elif how == "half-close":
            client.writer.write_eof()
        else:
            client.reset()
        await until(lambda: balancer.dispatcher.queued == 0)
        assert not balancer.proxy.keepalive._due
        llama.calls[0].proceed.set()
        await balancer.wait_idle()

        assert len(llama.calls) == 1
        line = balancer.access_log()[0]
        assert (line["outcome"], line["status"]) == ("client_disconnected", 200)
        assert line["keepalives"] >= 2
