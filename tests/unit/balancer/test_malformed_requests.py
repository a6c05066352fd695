"""What is malformed gets one refusal and reaches no replica; what is only unusual is served."""

import json

import pytest

from balancer_harness import balancer
from conformance import HEAD, INNER, REFUSED, SERVED, counted
from fake_llama import FakeLlama
from raw_http import post
from slotkeeper.wire.limits import Limits

QUICK = Limits(lingering_close=0.05, head_timeout=0.05, body_timeout=0.05)


def statuses(data: bytes) -> list[int]:
    """Of the final answers in `data`, which must be nothing but whole answers."""
    found: list[int] = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, value = line.split(b": ", 1)
            if name.lower() == b"content-length":
                length = int(value)
        if status >= 200:
            assert len(rest) >= length
            assert length, head
            found.append(status)
        data = rest[length:]
    return found


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED)
async def test_what_is_malformed_gets_one_refusal_and_nothing_else_happens(
    status: int, data: bytes
) -> None:
    async with FakeLlama() as llama, balancer(llama, limits=QUICK) as made:
        async with await made.client() as client:
            # A request behind it: nothing may be taken for one any more.
            await client.send(data + INNER)
            refusal = await client.response()
            assert refusal.status == status
            assert refusal.headers["connection"] == "close"
            assert json.loads(refusal.body)["error"]["type"] == "invalid_request_error"
            assert await client.at_end()

        assert llama.calls == []
        assert (await made.ask(post("/completion", b"mine"))).status == 200
        assert [call.body for call in llama.calls] == [b"mine"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /completion\r\n", id="HTTP/0.9 that waits"),
        pytest.param(HEAD, id="half a head"),
        pytest.param(counted(b": 3"), id="half a body"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhi", id="half a chunk"
        ),
    ],
)
async def test_what_does_not_go_on_is_refused_in_time(data: bytes) -> None:
    async with FakeLlama() as llama, balancer(llama, limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(data)
            assert (await client.response()).status == 408
            await client.send(INNER)
            assert await client.at_end()

        assert (await made.ask(post("/completion", b"mine"))).status == 200
        assert [call.body for call in llama.calls] == [b"mine"]


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
async def test_what_is_only_unusual_is_served_as_the_one_request_that_it_is(data: bytes) -> None:
    async with FakeLlama() as llama, balancer(llama, limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(data)
            response = await client.response()
            while response.status == 100:
                response = await client.response()

        body = INNER if INNER in data else b"hi" if b"hi" in data else b""
        assert response.status == 200
        assert [(call.path.partition("?")[0], call.body) for call in llama.calls] == [
            ("/completion", body)
        ]
        # One that comes to know of chunks or of another protocol would read on elsewhere.
        assert not {"transfer-encoding", "upgrade", "connection"} & llama.calls[0].headers.keys()
        assert llama.calls[0].headers["content-length"] == str(len(body))
        assert llama.calls[0].headers["host"] in {"", "a", "a-b_c.example:8080", "[::1]:8080"}


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(counted(b": 2\r\nConnection: close"), id="close"),
        pytest.param(b"POST /completion HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", id="HTTP/1.0"),
    ],
)
async def test_what_comes_after_the_last_request_is_not_looked_at(first: bytes) -> None:
    async with FakeLlama() as llama, balancer(llama, limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(first + INNER)
            assert statuses(await client.reader.read()) == [200]

        assert [call.body for call in llama.calls] == [b"hi"]


async def test_a_request_before_a_malformed_one_is_answered_first() -> None:
    async with FakeLlama() as llama, balancer(llama, limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(counted(b": 2") + counted(b": +2") + INNER)
            assert statuses(await client.reader.read()) == [200, 400]

        assert [call.body for call in llama.calls] == [b"hi"]


async def test_what_follows_an_offer_of_another_protocol_is_the_next_request() -> None:
    offer = SERVED["an offer whose body looks like a request"]
    async with FakeLlama() as llama, balancer(llama) as made, await made.client() as client:
        await client.send(offer + counted(b": 2"))
        for _ in range(2):
            assert (await client.response()).status == 200

        assert [call.body for call in llama.calls] == [INNER, b"hi"]
