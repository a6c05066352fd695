import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import Response, get, post
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.edge.routes import PROXIED
from slotkeeper.scheduling import QueueLimits

ORIGIN = "Origin: https://page.example"
EXPOSED = "X-Slotkeeper-Queue-Position, X-Slotkeeper-Wait-Seconds, Retry-After"


def check_readable(response: Response) -> None:
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert response.headers["access-control-expose-headers"] == EXPOSED
    assert response.headers["vary"] == "Origin"
    assert response.raw.lower().count(b"access-control-allow-origin") == 1


@pytest.mark.parametrize("path", [*sorted(each.decode() for each in PROXIED), "/v1/models"])
async def test_a_preflight_allows_the_requested_headers(path: str) -> None:
    keys = ApiKeys(b"salt")
    async with FakeLlama() as llama, run_balancer(llama, keys=keys) as balancer:
        requested = (
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,content-type,x-priority",
        )
        response = await balancer.request(get(path, ORIGIN, *requested, method="OPTIONS"))

        assert (response.status, response.body) == (204, b"")
        check_readable(response)
        headers = response.headers
        assert headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        assert headers["access-control-allow-headers"] == "authorization,content-type,x-priority"
        assert headers["access-control-max-age"] == "7200"
        assert "access-control-allow-credentials" not in headers
        assert (llama.calls, balancer.access_log()) == ([], [])


async def test_a_preflight_without_an_origin_allows_all_origins() -> None:
    async with run_balancer() as balancer:
        headers = (await balancer.request(get("/completion", method="OPTIONS"))).headers

    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == "*"
    assert "content-length" not in headers


@pytest.mark.parametrize("path", ["/slots/0", "/models/load", "/nothing", "/completion/"])
async def test_a_preflight_on_an_unknown_path_is_404(path: str) -> None:
    async with run_balancer() as balancer:
        response = await balancer.request(get(path, ORIGIN, method="OPTIONS"))

    assert response.status == 404


async def test_a_page_may_read_local_and_error_responses() -> None:
    limits = QueueLimits(max_queued=0)
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=limits) as balancer,
    ):
        await balancer.start_request(post("/completion"))
        for request, status in (
            (get("/v1/models", ORIGIN), 200),
            (get("/health", ORIGIN), 200),
            (get("/nothing", ORIGIN), 404),
            (post("/completion", b"{}", ORIGIN), 429),
        ):
            response = await balancer.request(request)
            assert response.status == status
            check_readable(response)


async def test_a_page_may_read_an_invalid_key_error_and_a_queue_timeout() -> None:
    keys = ApiKeys(b"salt")
    keys.replace({"ann": b"one"})
    limits = QueueLimits(queue_timeout=0.01)
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, keys=keys, queue_limits=limits) as balancer,
    ):
        await balancer.start_request(post("/completion", b"{}", "X-Api-Key: one"))
        timed_out = await balancer.request(post("/completion", b"{}", "X-Api-Key: one", ORIGIN))
        unauthorized = await balancer.request(post("/completion", b"{}", "X-Api-Key: two", ORIGIN))

        assert (timed_out.status, unauthorized.status) == (503, 401)
        for response in (timed_out, unauthorized):
            check_readable(response)


async def test_llama_servers_own_cors_headers_are_neither_doubled_nor_changed() -> None:
    async def with_cors_headers(call: Call) -> None:
        origin = call.headers.get("origin", "")
        await call.send_head(
            chunked=False, length=2, extra=f"Access-Control-Allow-Origin: {origin}\r\n"
        )
        await call.write(b"{}")

    async with FakeLlama(1, with_cors_headers) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion", b"{}", ORIGIN))
        assert response.raw.lower().count(b"access-control-allow-origin") == 1
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert response.headers["access-control-expose-headers"] == EXPOSED

        plain = await balancer.request(post("/completion"))
        assert "access-control-expose-headers" not in plain.headers


async def test_without_an_origin_local_responses_have_no_cors_headers() -> None:
    async with run_balancer() as balancer:
        response = await balancer.request(get("/v1/models"))

    assert json.loads(response.body)["object"] == "list"
    assert not [name for name in response.headers if name.startswith("access-control")]
