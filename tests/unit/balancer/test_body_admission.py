"""What becomes of requests that are refused before they are whole."""

import pytest

from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import get, post
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.wire.limits import Limits

PAGE = "Origin: https://page.example"
QUICK = Limits(
    lingering_close=0.02,
    head_timeout=0.05,
    body_timeout=0.05,
    max_body=100_000,
    max_buffered=150_000,
)


def ann() -> ApiKeys:
    keys = ApiKeys(b"salt")
    keys.replace({"ann": b"one"})
    return keys


def head(*headers: str, path: str = "/completion") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 99999",
        "Transfer-Encoding: chunked",
        "Content-Length: 2\r\nExpect: 100-continue",
    ],
    ids=["long", "of unknown length", "asked for"],
)
@pytest.mark.parametrize("key", ["X-Api-Key: two", "X-Other: one"])
async def test_who_has_no_key_is_refused_before_the_body(framing: str, key: str) -> None:
    async with FakeLlama() as llama, balancer(llama, keys=ann(), limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(head(framing, key))
            response = await client.response()
            assert (response.status, response.error_code) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["connection"] == "close"
            assert made.clients.listener.budget.buffered == 0
            # What it sends all the same is no request.
            await client.send(post("/completion", b"{}", "X-Api-Key: one"))
            assert await client.at_end()
        assert llama.calls == []


async def test_who_has_a_key_may_send_a_large_body() -> None:
    body = b"x" * 90_000
    async with FakeLlama() as llama, balancer(llama, keys=ann(), limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(
                head("Content-Length: 90000", "Expect: 100-continue", "X-Api-Key: one")
            )
            assert (await client.response()).status == 100
            assert (await client.ask(body)).status == 200
        assert llama.calls[0].body == body


async def test_a_small_request_without_a_key_does_not_cost_its_connection() -> None:
    async with (
        FakeLlama() as llama,
        balancer(llama, keys=ann()) as made,
        await made.client() as client,
    ):
        assert (await client.ask(post("/completion"))).status == 401
        assert (await client.ask(post("/completion", b"{}", "X-Api-Key: one"))).status == 200


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (head(PAGE, "Content-Length: 100001"), 413, "body_too_large"),
        (head(PAGE, "Content-Length: 2") + b"x", 408, "request_timeout"),
        (head(PAGE, "Expect: x"), 417, "expectation_failed"),
        (head(PAGE, "Host: b"), 400, "bad_request"),
    ],
)
async def test_a_refusal_behind_a_whole_head_may_be_read_by_the_page_and_is_logged(
    sent: bytes, status: int, code: str
) -> None:
    async with balancer(limits=QUICK) as made:
        response = await made.ask(sent)

        assert (response.status, response.error_code) == (status, code)
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        (line,) = made.lines()
        assert line.pop("client").startswith("127.0.0.1:")
        assert line == {
            "time": 1_700_000_000.0,
            "key": None,
            "method": "POST",
            "path": "/completion",
            "trace": None,
            "status": status,
            "outcome": "rejected",
            "code": code,
        }
        assert made.metric("requests_total", outcome="rejected", code=str(status)) == 1


@pytest.mark.parametrize("cut", [0, 10], ids=["whole", "in part"])
async def test_a_page_may_read_that_there_is_no_room(cut: int) -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama, limits=QUICK) as made:
        await made.start(post("/completion"))
        await made.start(post("/completion", b"x" * 90_000))
        sent = post("/completion", b"x" * 90_000, PAGE)
        response = await made.ask(sent[: len(sent) - cut])

        assert (response.status, response.error_code) == (503, "buffer_limit")
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert made.lines()[-1]["path"] == "/completion"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000, 431),
        (b"GET /half", 408),
    ],
)
async def test_of_a_head_that_is_not_whole_nothing_is_told_but_that_it_was_refused(
    sent: bytes, status: int
) -> None:
    async with balancer(limits=QUICK) as made:
        assert (await made.ask(sent)).status == status

        (line,) = made.lines()
        assert (line["status"], line["method"], line["path"]) == (status, None, None)
        assert made.metric("requests_total", outcome="rejected", code=str(status)) == 1


async def test_a_refusal_is_told_of_the_request_that_it_is_for() -> None:
    async with balancer(limits=QUICK) as made:
        async with await made.client() as client:
            await client.send(get("/v1/models", PAGE) + b"GET /half")
            assert (await client.response()).status == 200
            late = await client.response()

        assert late.status == 408
        assert "access-control-allow-origin" not in late.headers
        assert made.lines()[-1]["path"] is None
