"""Requests that are rejected before they are complete."""

import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import get, post
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.wire.limits import Limits

ORIGIN = "Origin: https://page.example"
SHORT_TIMEOUTS = Limits(
    lingering_close=0.02,
    head_timeout=0.05,
    body_timeout=0.05,
    max_body=100_000,
    max_buffered=150_000,
)


def one_key() -> ApiKeys:
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
    ids=["long", "unknown length", "Expect"],
)
@pytest.mark.parametrize("key", ["X-Api-Key: two", "X-Other: one"])
async def test_a_request_without_a_valid_key_is_rejected_before_its_body(
    framing: str, key: str
) -> None:
    async with (
        FakeLlama() as llama,
        run_balancer(llama, keys=one_key(), limits=SHORT_TIMEOUTS) as balancer,
    ):
        async with await balancer.connect() as client:
            await client.send(head(framing, key))
            response = await client.response()
            assert (response.status, response.error_code) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["connection"] == "close"
            assert balancer.client_server.listener.budget.buffered == 0
            # What it sends nevertheless is not read as a request.
            await client.send(post("/completion", b"{}", "X-Api-Key: one"))
            assert await client.at_end()
        assert llama.calls == []


async def test_a_request_with_a_valid_key_may_have_a_large_body() -> None:
    body = b"x" * 90_000
    async with (
        FakeLlama() as llama,
        run_balancer(llama, keys=one_key(), limits=SHORT_TIMEOUTS) as balancer,
    ):
        async with await balancer.connect() as client:
            await client.send(
                head("Content-Length: 90000", "Expect: 100-continue", "X-Api-Key: one")
            )
            assert (await client.response()).status == 100
            assert (await client.request(body)).status == 200
        assert llama.calls[0].body == body


async def test_a_small_request_without_a_key_keeps_its_connection() -> None:
    async with (
        FakeLlama() as llama,
        run_balancer(llama, keys=one_key()) as balancer,
        await balancer.connect() as client,
    ):
        assert (await client.request(post("/completion"))).status == 401
        assert (await client.request(post("/completion", b"{}", "X-Api-Key: one"))).status == 200


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (head(ORIGIN, "Content-Length: 100001"), 413, "body_too_large"),
        (head(ORIGIN, "Content-Length: 2") + b"x", 408, "request_timeout"),
        (head(ORIGIN, "Expect: x"), 417, "expectation_failed"),
        (head(ORIGIN, "Host: b"), 400, "bad_request"),
    ],
)
async def test_a_rejection_after_a_complete_head_has_cors_headers_and_is_logged(
    sent: bytes, status: int, code: str
) -> None:
    async with run_balancer(limits=SHORT_TIMEOUTS) as balancer:
        response = await balancer.request(sent)

        assert (response.status, response.error_code) == (status, code)
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        (line,) = balancer.access_log()
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
        assert balancer.metric("requests_total", outcome="rejected", code=str(status)) == 1


@pytest.mark.parametrize("missing", [0, 10], ids=["complete", "incomplete"])
async def test_a_buffer_limit_error_has_cors_headers(missing: int) -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, limits=SHORT_TIMEOUTS) as balancer,
    ):
        await balancer.start_request(post("/completion"))
        await balancer.start_request(post("/completion", b"x" * 90_000))
        sent = post("/completion", b"x" * 90_000, ORIGIN)
        response = await balancer.request(sent[: len(sent) - missing])

        assert (response.status, response.error_code) == (503, "buffer_limit")
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert balancer.access_log()[-1]["path"] == "/completion"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000, 431),
        (b"GET /half", 408),
    ],
)
async def test_a_rejected_incomplete_head_is_logged_without_method_and_path(
    sent: bytes, status: int
) -> None:
    async with run_balancer(limits=SHORT_TIMEOUTS) as balancer:
        assert (await balancer.request(sent)).status == status

        (line,) = balancer.access_log()
        assert (line["status"], line["method"], line["path"]) == (status, None, None)
        assert balancer.metric("requests_total", outcome="rejected", code=str(status)) == 1


async def test_a_rejection_is_attributed_to_the_request_that_it_is_for() -> None:
    async with run_balancer(limits=SHORT_TIMEOUTS) as balancer:
        async with await balancer.connect() as client:
            await client.send(get("/v1/models", ORIGIN) + b"GET /half")
            assert (await client.response()).status == 200
            rejection = await client.response()

        assert rejection.status == 408
        assert "access-control-allow-origin" not in rejection.headers
        assert balancer.access_log()[-1]["path"] is None
