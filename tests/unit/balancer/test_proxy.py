import asyncio
import json

import pytest

from balancing import balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.balancer.policy import Bounds
from until import until


def code(body: bytes) -> str:
    found: str = json.loads(body)["error"]["code"]
    return found


async def test_a_request_reaches_a_replica_and_its_answer_comes_back() -> None:
    async with FakeLlama() as llama, balancer(llama) as made:
        response = await made.ask(post("/v1/chat/completions?x=1", b"hello", "X-Mine: 1"))

        assert json.loads(response.body)["echo"] == "hello"
        (call,) = llama.calls
        assert (call.method, call.path) == ("POST", "/v1/chat/completions?x=1")
        assert (call.headers["x-mine"], call.headers["host"]) == ("1", "test")


async def test_a_request_split_at_any_byte_gets_the_same_answer() -> None:
    request = post("/completion", b"hello")
    async with FakeLlama() as llama, balancer(llama) as made, await made.client() as client:
        whole = await client.ask(request)
        for at in range(1, len(request)):
            await client.send(request[:at])
            await asyncio.sleep(0)
            await client.send(request[at:])
            assert (await client.response()).raw == whole.raw


async def test_a_chunked_request_arrives_with_its_length() -> None:
    async with FakeLlama() as llama, balancer(llama) as made:
        response = await made.ask(
            b"POST /completion HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
        )

        assert json.loads(response.body)["echo"] == "hello"
        assert llama.calls[0].headers["content-length"] == "5"
        assert "transfer-encoding" not in llama.calls[0].headers


async def test_a_stream_passes_through_byte_for_byte() -> None:
    body = b"6;ext=1\r\ndata: \r\n" + b"03\r\n\x00\xff\n\r\n" + b"0\r\nX-Trailer: 1\r\n\r\n"

    async def stream(call: Call) -> None:
        await call.head(extra="X-Own: 1\r\n")
        for byte in body:
            await call.write(bytes([byte]))

    async with (
        FakeLlama(script=stream) as llama,
        balancer(llama) as made,
        await made.client() as client,
    ):
        await client.send(post("/completion"))
        raw = await client.reader.readuntil(b"X-Trailer: 1\r\n\r\n")

    assert raw == (
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
        b"X-Own: 1\r\nX-Slotkeeper-Queue-Position: 0\r\nX-Slotkeeper-Wait-Seconds: 0.000\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + body
    )


async def test_each_piece_of_a_stream_is_passed_on_as_it_comes() -> None:
    async with (
        FakeLlama(script=when_told) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")) as client,
    ):
        await client.reader.readuntil(b"data: first\n\n\r\n")
        llama.calls[0].go.set()

        assert await client.reader.readuntil(b"0\r\n\r\n") == (b"c\r\ndata: last\n\n\r\n0\r\n\r\n")


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks() -> None:
    async with (
        FakeLlama(script=when_told) as llama,
        balancer(llama) as made,
        await made.start(
            post("/completion", b"{}", "Connection: keep-alive", version="1.0")
        ) as client,
    ):
        (call,) = await llama.called(1)
        call.go.set()
        response = await client.response()

    assert response.body == b"data: first\n\ndata: last\n\n"
    assert response.headers["connection"] == "close"
    assert "transfer-encoding" not in response.headers


async def test_a_replica_has_as_many_requests_as_slots_and_no_more() -> None:
    async with (
        FakeLlama(3, when_told) as first,
        FakeLlama(2, when_told) as second,
        balancer(first, second) as made,
    ):
        clients = [await made.start(post("/completion")) for _ in range(9)]
        await first.called(3)
        await second.called(2)
        assert (made.dispatcher.busy, made.dispatcher.waiting) == (5, 4)

        for llama in (first, second):
            llama.script = _answer
            for call in llama.calls:
                call.go.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()
        await made.at_rest()
        assert (first.over_commits, second.over_commits) == (0, 0)
        assert (first.most_at_once, second.most_at_once) == (3, 2)


async def test_who_came_first_is_served_first() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        names = [f"{number}".encode() for number in range(8)]
        clients = [await made.start(post("/completion", name)) for name in names]
        for number in range(len(names)):
            calls = await llama.called(number + 1)
            calls[number].go.set()
        for client in clients:
            await client.response()
            await client.close()

    assert [call.body for call in llama.calls] == names


async def test_one_more_than_may_wait_gets_429_and_a_time_to_come_back() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=Bounds(max_waiting=1)) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion")),
    ):
        response = await made.ask(post("/completion"))

        assert (response.status, code(response.body)) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert made.metric("requests_total", outcome="refused", code="429") == 1


async def test_who_waits_too_long_gets_503_and_a_time_to_come_back() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=Bounds(max_wait=0.02)) as made,
        await made.start(post("/completion")),
    ):
        response = await made.ask(post("/completion"))

        assert (response.status, code(response.body)) == (503, "no_free_slot")
        assert int(response.headers["retry-after"]) >= 1


async def test_who_waits_too_long_for_a_first_replica_gets_503() -> None:
    async with balancer(bounds=Bounds(max_wait_no_replica=0.02)) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, code(response.body)) == (503, "no_replica")
        assert "retry-after" in response.headers


async def test_requests_wait_for_a_first_replica() -> None:
    async with (
        FakeLlama() as llama,
        balancer() as made,
        await made.start(post("/completion")) as client,
    ):
        made.proxy.replicas.change({llama.name: True})

        assert (await client.response()).status == 200


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_who_gives_up_while_waiting_leaves_the_queue_and_reaches_no_replica(
    leave: str,
) -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        async with await made.start(post("/completion")):
            waiting = await made.start(post("/completion", b"mine"))
            _leave(waiting, leave)
            await until(lambda: made.dispatcher.waiting == 0)
            llama.calls[0].go.set()
            await made.at_rest()

        assert len(llama.calls) == 1
        assert [line["outcome"] for line in made.lines()] == ["gone", "answered"]


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_who_gives_up_while_running_ends_the_request_at_the_replica(leave: str) -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        client = await made.start(post("/completion"))
        await client.reader.readuntil(b"data: first\n\n\r\n")
        _leave(client, leave)

        await llama.calls[0].gone.wait()
        await made.at_rest()
        assert made.metric("let_go_seconds_count") == 1


async def test_an_abandoned_slot_is_given_on_only_when_the_replica_has_let_go_of_it() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        llama.lets_go.clear()
        client = await made.start(post("/completion"))
        await llama.called(1)
        client.reset()
        await until(lambda: not made.proxy.active)
        async with await made.start(post("/completion")) as second:
            await until(lambda: llama.looks > 5)
            assert (made.dispatcher.busy, made.dispatcher.waiting) == (1, 1)

            llama.lets_go.set()
            calls = await llama.called(2)
            calls[1].go.set()
            assert (await second.response()).status == 200
        assert llama.over_commits == 0


async def test_a_failed_connection_is_tried_elsewhere() -> None:
    async with FakeLlama(1) as first, FakeLlama(1) as second, balancer(first, second) as made:
        await first.stop()
        answers = [await made.ask(post("/completion")) for _ in range(3)]

        assert [each.status for each in answers] == [200] * 3
        assert len(second.calls) == 3
        assert made.metric("retries_total") == 1
        assert made.metric("replicas_set_aside_total", reason="refused") == 1


async def test_a_replica_that_dies_before_its_answer_costs_nobody_anything() -> None:
    async def die_once(call: Call) -> None:
        first.script = _answer
        call.reset()

    async with FakeLlama(1, die_once) as first, balancer(first) as made:
        response = await made.ask(post("/completion", b"again"))
        await made.at_rest()

        assert response.status == 200
        assert [call.body for call in first.calls] == [b"again", b"again"]
        assert made.lines()[0]["tries"] == 2


async def test_a_request_that_kills_every_replica_is_given_up() -> None:
    async def die(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, die) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, code(response.body)) == (502, "replica_failed")
        assert len(llama.calls) == 3
        await made.at_rest()


async def test_a_retried_request_goes_before_those_that_came_later() -> None:
    told = asyncio.Event()

    async def die_when_told(call: Call) -> None:
        await told.wait()
        llama.script = _answer
        call.reset()

    async with FakeLlama(1, die_when_told) as llama, balancer(llama) as made:
        clients = [await made.start(post("/completion", name)) for name in (b"1", b"2", b"3")]
        told.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()

        assert [call.body for call in llama.calls] == [b"1", b"1", b"2", b"3"]


async def test_a_stale_connection_is_no_reason_to_set_a_replica_aside() -> None:
    async def hang_up(call: Call) -> None:
        llama.script = _answer
        call.reset()

    async with FakeLlama(1) as llama, balancer(llama) as made:
        await made.ask(post("/completion"))
        llama.script = hang_up
        response = await made.ask(post("/completion"))

        assert response.status == 200
        assert made.metric("replicas_set_aside_total", reason="reset") == 0


async def test_an_answer_that_breaks_off_is_cut_and_not_tried_again() -> None:
    async def break_off(call: Call) -> None:
        await call.head()
        await call.event("half")
        await call.go.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as bad,
        FakeLlama(1, when_told) as good,
        balancer(bad, good) as made,
    ):
        clients = [await made.start(post("/completion")) for _ in range(2)]
        await bad.called(1)
        await good.called(1)
        bad.calls[0].go.set()
        good.calls[0].go.set()
        ends = await asyncio.gather(
            *(client.response() for client in clients), return_exceptions=True
        )

        assert sorted(type(end).__name__ for end in ends) == ["IncompleteReadError", "Response"]
        await made.at_rest()
        assert len(bad.calls) == len(good.calls) == 1
        assert {line["outcome"] for line in made.lines()} == {"cut", "answered"}


async def test_a_broken_off_answer_without_a_length_ends_in_a_reset() -> None:
    async def break_off(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await call.go.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")) as client,
    ):
        await client.reader.readuntil(b"half")
        llama.calls[0].go.set()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_an_answer_that_is_no_http_is_a_502() -> None:
    async def garble(call: Call) -> None:
        await call.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with FakeLlama(1, garble) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, code(response.body)) == (502, "replica_failed")
        await made.at_rest()


async def test_a_client_that_does_not_keep_up_holds_its_replica_back() -> None:
    size = 60_000_000
    written = asyncio.Event()

    async def flood(call: Call) -> None:
        await call.head(chunked=False, length=size)
        await call.write(b"x" * size)
        written.set()

    async with (
        FakeLlama(1, flood) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")) as client,
    ):
        await until(lambda: made.clients.connections and _behind(made.clients.connections))
        assert not written.is_set()

        assert len((await client.response()).body) == size
        await made.at_rest()


async def test_one_connection_may_ask_again_and_again() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made, await made.client() as client:
        for number in range(20):
            response = await client.ask(post("/completion", b"%d" % number))
            assert json.loads(response.body)["echo"] == str(number)

        assert llama.connections <= 3


async def test_two_requests_in_one_go_are_answered_in_order_with_one_slot() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made, await made.client() as client:
        await client.send(post("/completion", b"1") + post("/completion", b"2") + get("/health"))

        echoes = [json.loads((await client.response()).body)["echo"] for _ in range(2)]
        assert echoes == ["1", "2"]
        assert json.loads((await client.response()).body) == {"status": "ok"}


async def test_an_error_of_the_replica_is_the_clients_to_see() -> None:
    async def refuse(call: Call) -> None:
        await call.whole({"error": {"message": "bad grammar"}}, "400 Bad Request")

    async with FakeLlama(1, refuse) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, json.loads(response.body)["error"]["message"]) == (
            400,
            "bad grammar",
        )
        assert made.metric("requests_total", outcome="answered", code="400") == 1


async def test_a_draining_balancer_ends_what_it_has_and_takes_nothing_new() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        running = await made.start(post("/completion", b"1"))
        waiting = await made.start(post("/completion", b"2"))
        draining = asyncio.ensure_future(made.proxy.drain(10))
        await until(lambda: made.proxy.draining)
        made.clients.drain()

        refused = await made.ask(post("/completion"))
        assert (refused.status, code(refused.body)) == (503, "shutting_down")
        assert refused.headers["connection"] == "close"

        for number, client in enumerate((running, waiting)):
            calls = await llama.called(number + 1)
            calls[number].go.set()
            response = await client.response()
            assert response.body == b"data: first\n\ndata: last\n\n"
            await client.close()
        assert await draining == 0


async def test_a_drain_has_an_end() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")),
    ):
        assert await made.proxy.drain(0.01) == 1


async def test_a_request_leaves_one_line_that_says_how_it_went() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion?q=secret", b"hello"))

        (line,) = made.lines()
        assert line.pop("client").startswith("127.0.0.1:")
        assert 0 <= line.pop("wait") <= line.pop("first_byte") <= line.pop("seconds")
        assert line == {
            "time": 1_700_000_000.0,
            "key": None,
            "method": "POST",
            "path": "/completion",
            "status": 200,
            "outcome": "answered",
            "replica": llama.name,
            "relayed": False,
            "tries": 1,
            "hit": None,
            "overtaken": 0,
            "bytes_in": 5,
            "bytes_out": len(response.body),
        }


async def _answer(call: Call) -> None:
    await call.whole({})


def _leave(client: RawClient, way: str) -> None:
    if way == "close":
        client.writer.close()
    elif way == "half-close":
        client.writer.write_eof()
    else:
        client.reset()


def _behind(connections: object) -> bool:
    return any(each.behind for each in connections)  # type: ignore[attr-defined]
