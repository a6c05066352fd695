import asyncio
import json

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import get, post
from wait_until import until


async def test_a_request_reaches_a_replica_and_its_response_the_client() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        response = await balancer.request(
            post("/v1/chat/completions?x=1", b"hello", "Traceparent: 1")
        )

        assert json.loads(response.body)["echo"] == "hello"
        (call,) = llama.calls
        assert (call.method, call.path) == ("POST", "/v1/chat/completions?x=1")
        assert (call.headers["traceparent"], call.headers["host"]) == ("1", "test")


async def test_headers_that_llama_server_has_no_use_for_are_not_forwarded() -> None:
    dropped = {
        "accept": "not/a/media/type",  # llama-server responds with an empty 400
        "range": "bytes=9-1",  # llama-server responds with 416
        "cookie": "session=1",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "x-conversation-id": "1",
        "x-forwarded-for": "192.0.2.1",
        "x-mine": "1",
    }
    kept = {
        "content-type": "multipart/form-data; boundary=x",
        "user-agent": "test",
        "origin": "https://page.example",
    }
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        headers = [f"{name}: {value}" for name, value in (dropped | kept).items()]
        await balancer.request(post("/v1/audio/transcriptions", b"hello", *headers))

        assert llama.calls[0].headers == kept | {"host": "test", "content-length": "5"}


async def test_a_request_split_at_any_byte_gets_the_same_response() -> None:
    request = post("/completion", b"hello")
    async with (
        FakeLlama() as llama,
        run_balancer(llama) as balancer,
        await balancer.connect() as client,
    ):
        expected = await client.request(request)
        for at in range(1, len(request)):
            await client.send(request[:at])
            await asyncio.sleep(0)
            await client.send(request[at:])
            assert (await client.response()).raw == expected.raw


async def test_a_chunked_request_arrives_with_its_length() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        response = await balancer.request(
            b"POST /completion HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
        )

        assert json.loads(response.body)["echo"] == "hello"
        assert llama.calls[0].headers["content-length"] == "5"
        assert "transfer-encoding" not in llama.calls[0].headers


async def test_a_stream_passes_through_byte_for_byte() -> None:
    body = b"6;ext=1\r\ndata: \r\n" + b"03\r\n\x00\xff\n\r\n" + b"0\r\nX-Trailer: 1\r\n\r\n"

    async def stream(call: Call) -> None:
        await call.send_head(extra="X-Own: 1\r\n")
        for byte in body:
            await call.write(bytes([byte]))

    async with (
        FakeLlama(script=stream) as llama,
        run_balancer(llama) as balancer,
        await balancer.connect() as client,
    ):
        await client.send(post("/completion"))
        raw = await client.reader.readuntil(b"X-Trailer: 1\r\n\r\n")

    assert raw == (
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
        b"X-Own: 1\r\nX-Slotkeeper-Queue-Position: 0\r\nX-Slotkeeper-Wait-Seconds: 0.000\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + body
    )


async def test_each_piece_of_a_stream_is_sent_on_at_once() -> None:
    async with (
        FakeLlama(script=stream_two_events) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        await client.reader.readuntil(b"data: first\n\n\r\n")
        llama.calls[0].proceed.set()

        assert await client.reader.readuntil(b"0\r\n\r\n") == (b"c\r\ndata: last\n\n\r\n0\r\n\r\n")


async def test_an_http_1_0_client_gets_a_stream_without_chunks() -> None:
    async with (
        FakeLlama(script=stream_two_events) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(
            post("/completion", b"{}", "Connection: keep-alive", version="1.0")
        ) as client,
    ):
        (call,) = await llama.wait_calls(1)
        call.proceed.set()
        response = await client.response()

    assert response.body == b"data: first\n\ndata: last\n\n"
    assert response.headers["connection"] == "close"
    assert "transfer-encoding" not in response.headers


async def test_a_slow_client_causes_backpressure_on_its_replica() -> None:
    size = 60_000_000
    written = asyncio.Event()

    async def flood(call: Call) -> None:
        await call.send_head(chunked=False, length=size)
        await call.write(b"x" * size)
        written.set()

    async with (
        FakeLlama(1, flood) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        await until(
            lambda: (
                balancer.client_server.listener.connections
                and _write_paused(balancer.client_server.listener.connections)
            )
        )
        assert not written.is_set()

        assert len((await client.response()).body) == size
        await balancer.wait_idle()


async def test_one_connection_carries_many_requests() -> None:
    async with (
        FakeLlama(1) as llama,
        run_balancer(llama) as balancer,
        await balancer.connect() as client,
    ):
        for number in range(20):
            response = await client.request(post("/completion", b"%d" % number))
            assert json.loads(response.body)["echo"] == str(number)

        # Two of them were for its model.
        assert llama.connections <= 5


async def test_pipelined_requests_are_served_in_order_with_one_slot() -> None:
    async with (
        FakeLlama(1) as llama,
        run_balancer(llama) as balancer,
        await balancer.connect() as client,
    ):
        await client.send(post("/completion", b"1") + post("/completion", b"2") + get("/health"))

        echoes = [json.loads((await client.response()).body)["echo"] for _ in range(2)]
        assert echoes == ["1", "2"]
        assert json.loads((await client.response()).body) == {"status": "ok"}


async def test_an_error_response_of_the_replica_reaches_the_client() -> None:
    async def respond_with_error(call: Call) -> None:
        await call.send_json({"error": {"message": "bad grammar"}}, "400 Bad Request")

    async with FakeLlama(1, respond_with_error) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion"))

        assert (response.status, json.loads(response.body)["error"]["message"]) == (
            400,
            "bad grammar",
        )
        assert balancer.metric("requests_total", outcome="completed", code="400") == 1


def _write_paused(connections: object) -> bool:
    return any(each.write_paused for each in connections)  # type: ignore[attr-defined]
