"""Malformed requests get one error response and reach no replica; unusual ones are served."""

import json

import pytest

from balancer_harness import run_balancer
from conformance import HEAD, REJECTED, SERVED, SMUGGLED, counted
from fake_llama import FakeLlama
from raw_http import post
from slotkeeper.wire.limits import Limits

SHORT_TIMEOUTS = Limits(lingering_close=0.05, head_timeout=0.05, body_timeout=0.05)


def statuses(data: bytes) -> list[int]:
    """Return the statuses of the final responses in `data`, which must be complete responses."""
    statuses: list[int] = []
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
            statuses.append(status)
        data = rest[length:]
    return statuses


@pytest.mark.parametrize(("status", "data"), REJECTED.values(), ids=REJECTED)
async def test_a_malformed_request_gets_one_error_response_and_reaches_no_replica(
    status: int, data: bytes
) -> None:
    async with FakeLlama() as llama, run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            # With a request behind it, which must not be read as one.
            await client.send(data + SMUGGLED)
            response = await client.response()
            assert response.status == status
            assert response.headers["connection"] == "close"
            assert json.loads(response.body)["error"]["type"] == "invalid_request_error"
            assert await client.at_end()

        assert llama.calls == []
        assert (await balancer.request(post("/completion", b"mine"))).status == 200
        assert [call.body for call in llama.calls] == [b"mine"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /completion\r\n", id="HTTP/0.9 without its end"),
        pytest.param(HEAD, id="half a head"),
        pytest.param(counted(b": 3"), id="half a body"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhi", id="half a chunk"
        ),
    ],
)
async def test_an_incomplete_request_times_out(data: bytes) -> None:
    async with FakeLlama() as llama, run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            await client.send(data)
            assert (await client.response()).status == 408
            await client.send(SMUGGLED)
            assert await client.at_end()

        assert (await balancer.request(post("/completion", b"mine"))).status == 200
        assert [call.body for call in llama.calls] == [b"mine"]


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
async def test_an_unusual_but_valid_request_is_proxied_as_one_request(data: bytes) -> None:
    async with FakeLlama() as llama, run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            await client.send(data)
            response = await client.response()
            while response.status == 100:
                response = await client.response()

        body = SMUGGLED if SMUGGLED in data else b"hi" if b"hi" in data else b""
        assert response.status == 200
        assert [(call.path.partition("?")[0], call.body) for call in llama.calls] == [
            ("/completion", body)
        ]
        # With one of these, the replica would see the end of the request elsewhere.
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
async def test_bytes_after_the_last_request_of_a_connection_are_ignored(first: bytes) -> None:
    async with FakeLlama() as llama, run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            await client.send(first + SMUGGLED)
            assert statuses(await client.reader.read()) == [200]

        assert [call.body for call in llama.calls] == [b"hi"]


async def test_a_request_before_a_malformed_one_is_served_first() -> None:
    async with FakeLlama() as llama, run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            await client.send(counted(b": 2") + counted(b": +2") + SMUGGLED)
            assert statuses(await client.reader.read()) == [200, 400]

        assert [call.body for call in llama.calls] == [b"hi"]


async def test_bytes_after_an_upgrade_offer_are_the_next_request() -> None:
    offer = SERVED["an upgrade offer whose body looks like a request"]
    async with (
        FakeLlama() as llama,
        run_balancer(llama) as balancer,
        await balancer.connect() as client,
    ):
        await client.send(offer + counted(b": 2"))
        for _ in range(2):
            assert (await client.response()).status == 200

        assert [call.body for call in llama.calls] == [SMUGGLED, b"hi"]
