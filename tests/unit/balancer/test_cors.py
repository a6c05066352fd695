import json

import pytest

from balancer_harness import balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import Response, get, post
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.edge.routes import PROXIED
from slotkeeper.scheduling import QueueLimits

PAGE = "Origin: https://page.example"
EXPOSED = "X-Slotkeeper-Queue-Position, X-Slotkeeper-Wait-Seconds, Retry-After"


def check_readable(response: Response) -> None:
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert response.headers["access-control-expose-headers"] == EXPOSED
    assert response.headers["vary"] == "Origin"
    assert response.raw.lower().count(b"access-control-allow-origin") == 1


@pytest.mark.parametrize("path", [*sorted(each.decode() for each in PROXIED), "/v1/models"])
async def test_a_page_may_send_what_it_asks_for(path: str) -> None:
    keys = ApiKeys(b"salt")
    async with FakeLlama() as llama, balancer(llama, keys=keys) as made:
        asked = (
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,content-type,x-priority",
        )
        response = await made.ask(get(path, PAGE, *asked, method="OPTIONS"))

        assert (response.status, response.body) == (204, b"")
        check_readable(response)
        headers = response.headers
        assert headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        assert headers["access-control-allow-headers"] == "authorization,content-type,x-priority"
        assert headers["access-control-max-age"] == "7200"
        assert "access-control-allow-credentials" not in headers
        assert (llama.calls, made.lines()) == ([], [])


async def test_a_preflight_of_no_page_in_particular_is_answered_for_all() -> None:
    async with balancer() as made:
        headers = (await made.ask(get("/completion", method="OPTIONS"))).headers

    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == "*"
    assert "content-length" not in headers


@pytest.mark.parametrize("path", ["/slots/0", "/models/load", "/nothing", "/completion/"])
async def test_a_page_may_send_nothing_that_is_not_served(path: str) -> None:
    async with balancer() as made:
        response = await made.ask(get(path, PAGE, method="OPTIONS"))

    assert response.status == 404


async def test_a_page_may_read_what_we_answer_and_refuse() -> None:
    bounds = QueueLimits(max_queued=0)
    async with FakeLlama(1, when_told) as llama, balancer(llama, bounds=bounds) as made:
        await made.start(post("/completion"))
        for asked, status in (
            (get("/v1/models", PAGE), 200),
            (get("/health", PAGE), 200),
            (get("/nothing", PAGE), 404),
            (post("/completion", b"{}", PAGE), 429),
        ):
            response = await made.ask(asked)
            assert response.status == status
            check_readable(response)


async def test_a_page_may_read_that_its_key_is_not_known_and_that_it_waited_too_long() -> None:
    keys = ApiKeys(b"salt")
    keys.replace({"ann": b"one"})
    bounds = QueueLimits(queue_timeout=0.01)
    async with FakeLlama(1, when_told) as llama, balancer(llama, keys=keys, bounds=bounds) as made:
        await made.start(post("/completion", b"{}", "X-Api-Key: one"))
        expired = await made.ask(post("/completion", b"{}", "X-Api-Key: one", PAGE))
        unknown = await made.ask(post("/completion", b"{}", "X-Api-Key: two", PAGE))

        assert (expired.status, unknown.status) == (503, 401)
        for response in (expired, unknown):
            check_readable(response)


async def test_llama_servers_own_headers_are_neither_doubled_nor_changed() -> None:
    async def as_llama_server(call: Call) -> None:
        origin = call.headers.get("origin", "")
        await call.head(chunked=False, length=2, extra=f"Access-Control-Allow-Origin: {origin}\r\n")
        await call.write(b"{}")

    async with FakeLlama(1, as_llama_server) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion", b"{}", PAGE))
        assert response.raw.lower().count(b"access-control-allow-origin") == 1
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert response.headers["access-control-expose-headers"] == EXPOSED

        plain = await made.ask(post("/completion"))
        assert "access-control-expose-headers" not in plain.headers


async def test_without_an_origin_our_answers_say_nothing_of_pages() -> None:
    async with balancer() as made:
        response = await made.ask(get("/v1/models"))

    assert json.loads(response.body)["object"] == "list"
    assert not [name for name in response.headers if name.startswith("access-control")]
