import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from balancer_harness import Balancer, balancer
from fake_llama import Call, FakeLlama, Script, answer_at_once, when_told
from raw_http import RawClient, post
from slotkeeper.edge.stream_request import SMALL
from slotkeeper.scheduling import QueueLimits
from slotkeeper.wire.connection import DownstreamConnection
from sse import Event, events
from wait_until import until

STREAM = json.dumps({"prompt": "hello", "stream": True}).encode()
BEAT = 0.005
WELL = [Event("", "first"), Event("", "last")]


@asynccontextmanager
async def waiting(
    llama: FakeLlama,
    body: bytes = STREAM,
    path: str = "/v1/chat/completions",
    *headers: str,
    bounds: QueueLimits | None = None,
) -> AsyncIterator[tuple[Balancer, RawClient]]:
    """A request that has got two comments behind one that holds the only slot till it is told."""
    async with (
        balancer(llama, heartbeat_seconds=BEAT, bounds=bounds) as made,
        await made.start(post("/completion")),
        await made.start(post(path, body, *headers)) as client,
    ):
        await client.reader.readuntil(b"\r\n\r\n")
        await comments(client, 2)
        yield made, client


async def comments(client: RawClient, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        found.append((await client.reader.readexactly(size + 2))[:-2])
        assert found[-1].startswith(b": queued, position ")
    return found


async def rest(client: RawClient) -> list[Event]:
    """The events of what is still to come of the body."""
    body = b""
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        body += (await client.reader.readexactly(size + 2))[:-2]
    assert await client.reader.readexactly(2) == b"\r\n"
    return events(body)


async def served(llama: FakeLlama, client: RawClient) -> list[Event]:
    """What the waiting one gets when the slot is free and `llama` streams."""
    (await llama.called(1))[0].go.set()
    (await llama.called(2))[1].go.set()
    return await rest(client)


async def test_who_waits_for_a_stream_gets_its_head_and_comments_until_it_has_a_slot() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        first = await client.reader.readuntil(b"\n\n\r\n")
        await comments(client, 2)
        got = await served(llama, client)
        llama.script = answer_at_once
        again = await client.ask(post("/completion"))
        await made.at_rest()
        lines = made.lines()

    assert head == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"X-Slotkeeper-Queue-Position: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert first == b"16\r\n: queued, position 1\n\n\r\n"
    assert got == WELL
    assert again.headers["content-type"] == "application/json"
    beats = [line["keepalives"] for line in lines]
    assert (beats[0], beats[2]) == (0, 0)
    assert beats[1] >= 3
    assert (lines[1]["status"], lines[1]["outcome"]) == (200, "completed")


async def test_each_comment_says_the_place_of_now() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion")) as ahead,
        await made.start(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"X-Slotkeeper-Queue-Position: 2\r\n" in head
        assert (await comments(client, 1)) == [b": queued, position 2\n\n"]
        ahead.reset()
        await until(lambda: made.dispatcher.queued == 1)
        told = await comments(client, 10)

    assert told[-1] == b": queued, position 1\n\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post("/completion"), id="it asks for no stream"),
        pytest.param(post("/completion", b'{"a":{"stream":true}}'), id="something in it does"),
        pytest.param(post("/completion", b'{"stream":true'), id="it is no JSON"),
        pytest.param(post("/v1/embeddings", STREAM), id="embeddings"),
        pytest.param(post("/rerank", STREAM), id="rerankings"),
        pytest.param(post("/tokenize", STREAM), id="tokens"),
        pytest.param(post("/completion", STREAM, version="1.0"), id="HTTP/1.0"),
        pytest.param(
            post("/completion", b'{"a":"%s","b":{"stream":true}}' % (b"x" * SMALL)), id="large"
        ),
    ],
)
async def test_all_others_wait_in_silence(request_bytes: bytes) -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion")),
        await made.start(request_bytes) as silent,
        await made.start(post("/completion", STREAM)) as client,
    ):
        await client.reader.readuntil(b"\r\n\r\n")
        # The silent one was due before each of these.
        await comments(client, 3)
        (await llama.called(1))[0].go.set()
        (await llama.called(2))[1].go.set()
        response = await silent.response()

    assert response.headers["server"] == "llama.cpp"
    assert response.body == b"data: first\n\ndata: last\n\n"


async def test_without_the_option_nobody_gets_any() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion", STREAM)) as client,
    ):
        assert made.proxy.keepalive._timer is None
        for number in range(2):
            (await llama.called(number + 1))[number].go.set()
        assert (await client.response()).headers["server"] == "llama.cpp"


async def test_a_slot_in_time_leaves_the_answer_untouched() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=60) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion", STREAM)) as client,
    ):
        assert made.proxy.keepalive._timer
        for number in range(2):
            (await llama.called(number + 1))[number].go.set()
        assert (await client.response()).headers["server"] == "llama.cpp"
        assert not made.proxy.keepalive._due


async def test_a_large_body_is_looked_at_too() -> None:
    body = json.dumps({"prompt": "x" * SMALL, "stream": True}).encode()
    async with FakeLlama(1, when_told) as llama, waiting(llama, body) as (_, client):
        assert await served(llama, client) == WELL


async def test_who_gets_a_slot_while_its_large_body_is_looked_at_gets_no_comment() -> None:
    body = json.dumps({"prompt": "x" * 8 * 2**20, "stream": True}).encode()
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion", body)) as client,
    ):
        await until(lambda: made.proxy.keepalive._inspecting)
        made.dispatcher.replicas[llama.name].slots = 2
        made.proxy.dispatch()
        assert not made.proxy.keepalive._inspecting
        for call in await llama.called(2):
            call.go.set()
        assert (await client.response()).headers["server"] == "llama.cpp"


@pytest.mark.parametrize("framing", ["Content-Length: 25", "Connection: close"])
async def test_a_stream_without_chunks_is_put_into_chunks(framing: str) -> None:
    async def stream(call: Call) -> None:
        await call.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; x=y\r\n{framing}\r\n\r\n".encode()
        )
        await call.write(b"data: first\n\n")
        await call.go.wait()
        await call.write(b"data: last\n\n")
        if framing == "Connection: close":
            call.writer.close()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = stream
        assert await served(llama, client) == WELL
        await made.at_rest()


async def test_an_error_of_the_replica_is_one_event_and_the_end() -> None:
    error = {"code": 400, "message": "bad grammar", "type": "invalid_request_error"}
    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = answering({"error": error}, "400 Bad Request")
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)
        await made.at_rest()
        line = made.lines()[1]

    assert (event.name, json.loads(event.data)) == ("", {"error": error})
    assert (line["status"], line["outcome"]) == (200, "completed")


async def test_anthropics_clients_get_errors_as_they_read_them() -> None:
    error = {"message": "bad grammar", "type": "invalid_request_error"}
    async with (
        FakeLlama(1, when_told) as llama,
        waiting(llama, STREAM, "/v1/messages") as (_, client),
    ):
        llama.script = answering({"error": error}, "400 Bad Request")
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)

    assert event.name == "error"
    assert json.loads(event.data) == {"type": "error", "error": error}


async def test_an_answer_that_is_no_stream_is_one_event() -> None:
    tree = {"content": "hello"}
    async with FakeLlama(1, when_told) as llama, waiting(llama) as (_, client):
        llama.script = answering(tree, "200 OK", indent=2)
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)

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
async def test_whatever_else_a_replica_says_is_an_error_that_clients_can_read(
    status: str, body: bytes, message: str
) -> None:
    async def answer(call: Call) -> None:
        await call.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        await call.write(body)

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = answer
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)
        await made.at_rest()

    assert json.loads(event.data)["error"]["message"] == message


async def test_who_waits_too_long_gets_the_refusal_as_an_event() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        waiting(llama, bounds=QueueLimits(queue_timeout=0.1)) as (made, client),
    ):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await client.reader.readuntil(b"\r\n")
        await until(lambda: len(made.proxy.active) == 1)
        (line,) = made.lines()

    (event,) = events(body)
    assert json.loads(event.data)["error"]["code"] == "queue_timeout"
    assert (line["status"], line["outcome"]) == (200, "timed_out")
    assert line["keepalives"] >= 2


async def test_a_request_that_kills_every_replica_ends_in_an_event() -> None:
    async def die(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = die
        (await llama.called(1))[0].go.set()
        got = await rest(client)
        await made.at_rest()
        line = made.lines()[1]

    assert [json.loads(event.data)["error"]["code"] for event in got] == ["replica_failed"]
    assert (line["status"], line["outcome"], line["attempts"]) == (200, "failed", 3)


@pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 O"])
async def test_a_replica_that_breaks_off_in_its_head_ends_in_an_event(head: bytes) -> None:
    async def garble(call: Call) -> None:
        await call.write(head)
        call.writer.close()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = garble
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)
        await made.at_rest()

    assert json.loads(event.data)["error"]["code"] == "replica_failed"


async def test_a_replica_that_breaks_off_in_an_answer_that_is_no_stream_ends_in_an_event() -> None:
    async def break_off(call: Call) -> None:
        await call.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{")
        call.writer.close()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = break_off
        (await llama.called(1))[0].go.set()
        (event,) = await rest(client)
        await made.at_rest()

    assert json.loads(event.data)["error"]["code"] == "replica_failed"


async def test_a_stream_that_breaks_off_is_cut() -> None:
    async def break_off(call: Call) -> None:
        await call.head()
        await call.event("half")
        await call.go.wait()
        call.reset()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = break_off
        (await llama.called(1))[0].go.set()
        (await llama.called(2))[1].go.set()
        left = await client.reader.read()
        await made.at_rest()

    assert left.endswith(b"c\r\ndata: half\n\n\r\n")
    assert made.lines()[1]["outcome"] == "aborted"


async def test_a_retry_before_the_first_byte_goes_on_in_the_same_answer() -> None:
    async def die_twice(call: Call) -> None:
        # On the connection that was kept, which costs no try, and on a fresh one.
        if len(llama.calls) == 3:
            llama.script = when_told
        call.reset()

    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        llama.script = die_twice
        (await llama.called(1))[0].go.set()
        (await llama.called(4))[3].go.set()
        assert await rest(client) == WELL
        await made.at_rest()
        line = made.lines()[1]

    assert (line["attempts"], line["outcome"]) == (2, "completed")


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_who_leaves_between_comments_leaves_the_queue(leave: str) -> None:
    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        if leave == "close":
            client.writer.close()
        elif leave == "half-close":
            client.writer.write_eof()
        else:
            client.reset()
        await until(lambda: made.dispatcher.queued == 0)
        assert not made.proxy.keepalive._due
        llama.calls[0].go.set()
        await made.at_rest()

        assert len(llama.calls) == 1
        gone = made.lines()[0]
        assert (gone["outcome"], gone["status"]) == ("client_disconnected", 200)
        assert gone["keepalives"] >= 2


async def test_a_replica_is_asked_for_plain_bytes_once_the_head_is_out() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        waiting(llama, STREAM, "/completion", "Accept-Encoding: gzip, br", "X-Mine: 1") as (
            _,
            client,
        ),
    ):
        assert await served(llama, client) == WELL

    assert "accept-encoding" not in llama.calls[1].headers
    assert llama.calls[1].headers["x-mine"] == "1"


async def test_a_draining_balancer_ends_the_connection_after_the_stream() -> None:
    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        made.clients.drain()
        assert await served(llama, client) == WELL
        assert await client.at_end()


async def test_many_that_wait_share_one_timer() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion")),
    ):
        clients = [await made.start(post("/completion", STREAM)) for _ in range(30)]
        for client in clients:
            await client.reader.readuntil(b"\r\n\r\n")
            await comments(client, 2)
        due = made.proxy.keepalive._due
        assert len(due) == 30
        assert list(due.values()) == sorted(due.values())


def answering(tree: object, status: str, *, indent: int | None = None) -> Script:
    body = json.dumps(tree, indent=indent).encode()

    async def answer(call: Call) -> None:
        await call.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return answer


async def test_who_waits_for_a_balancer_that_leads_gets_the_rest_from_it() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as leading,
        balancer(heartbeat_seconds=BEAT) as standing_by,
        await leading.start(post("/completion")),
    ):
        standing_by.proxy.become_standby(None)
        async with await standing_by.start(post("/completion", STREAM)) as client:
            await client.reader.readuntil(b"\r\n\r\n")
            await comments(client, 2)
            standing_by.proxy.become_standby(f"127.0.0.1:{leading.port}")
            await until(lambda: leading.dispatcher.queued == 1)
            assert not standing_by.proxy.keepalive._due
            await comments(client, 3)
            assert await served(llama, client) == WELL
        await standing_by.at_rest()
        (line,) = standing_by.lines()

    assert (line["relayed"], line["outcome"]) == (True, "completed")
    assert line["keepalives"] >= 2


async def test_who_waits_again_after_a_try_gets_comments_too() -> None:
    async def die(call: Call) -> None:
        llama.loading = True
        llama.script = when_told
        call.reset()

    async with (
        FakeLlama(1, die) as llama,
        balancer(llama, heartbeat_seconds=BEAT) as made,
        await made.start(post("/completion", STREAM)) as client,
    ):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"X-Slotkeeper-Queue-Position: 0\r\n" in head
        await comments(client, 2)
        llama.loading = False
        assert await served(llama, client) == WELL


async def test_who_does_not_read_is_sent_no_more_comments() -> None:
    async with FakeLlama(1, when_told) as llama, waiting(llama) as (made, client):
        (forward,) = (each for each in made.proxy.active if each.early)
        connection = forward.exchange._channel
        assert isinstance(connection, DownstreamConnection)
        connection.pause_writing()
        sent = forward.early.keepalives_sent if forward.early else 0
        async with await made.start(post("/completion", STREAM)) as other:
            await other.reader.readuntil(b"\r\n\r\n")
            await comments(other, 3)
        assert forward.early
        assert forward.early.keepalives_sent == sent
        connection.resume_writing()
        await until(lambda: forward.early and forward.early.keepalives_sent > sent)
        assert await served(llama, client) == WELL
