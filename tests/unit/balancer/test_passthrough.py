import asyncio
import json

from balancer_harness import balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import get, post
from wait_until import until


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
        connections = made.clients.listener.connections
        await until(lambda: connections and _behind(connections))
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
        assert made.metric("requests_total", outcome="completed", code="400") == 1


def _behind(connections: object) -> bool:
    return any(each.write_paused for each in connections)  # type: ignore[attr-defined]
