import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from page_harness import PageGateway, run_page
from page_scenes import all_states
from raw_http import RawClient, Response
from slotkeeper.gateway.page.handler import CACHE_SECONDS, STATIC, Page
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

FILES = sorted(path.name for path in STATIC.iterdir())
MAX_BYTES = 100_000


@asynccontextmanager
async def page() -> AsyncIterator[tuple[PageGateway, RawClient]]:
    async with run_page() as gateway:
        port = int(gateway.url.rsplit(":", 1)[1].strip("/"))
        async with await RawClient.connect(port) as client:
            yield gateway, client


async def request(client: RawClient, path: str, *headers: str, method: str = "GET") -> Response:
    lines = [f"{method} {path} HTTP/1.1", "Host: llm", *headers, "", ""]
    await client.send("\r\n".join(lines).encode())
    return await client.response(to_head=method == "HEAD")


def address(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


def test_the_whole_page_is_below_100_kb() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < MAX_BYTES


@pytest.mark.parametrize("name", FILES)
def test_files_refer_to_no_other_host_and_have_nothing_inline(name: str) -> None:
    text = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")

    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("// ", ""))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?! [^>]*src)", text)


def test_paths_are_relative_so_that_a_prefix_works() -> None:
    for name in FILES:
        for reference in re.findall(
            r"""(?:src|href|fetch\(|from )=?\s*["']([^"'#]+)""", (STATIC / name).read_text()
        ):
            assert not reference.startswith("/"), (name, reference)


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_with_its_type_and_security_headers(name: str) -> None:
    async with page() as (_, client):
        response = await request(client, address(name))

    assert response.status == 200
    assert response.body == (STATIC / name).read_bytes()
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg"}
    assert response.headers["content-type"].startswith(kind[name.rsplit(".", 1)[1]])
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", FILES)
async def test_an_unchanged_file_is_not_sent_again(name: str) -> None:
    async with page() as (_, client):
        first = await request(client, address(name))
        tag = first.headers["etag"]
        again = await request(client, address(name), f'If-None-Match: "other", W/{tag}')
        other = await request(client, address(name), 'If-None-Match: "other"')

    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == tag
    assert other.status == 200


async def test_head_has_the_headers_only() -> None:
    async with page() as (_, client):
        response = await request(client, "/", method="HEAD")

    assert response.status == 200
    assert response.body == b""
    assert int(response.headers["content-length"]) == (STATIC / "index.html").stat().st_size


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/state.json"])
async def test_the_page_is_read_only(path: str) -> None:
    async with page() as (_, client):
        response = await request(client, path, "Content-Length: 0", method="POST")

    assert (response.status, response.error_code) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/index.html", "/page/../handler.py", "/page/%2e%2e/handler.py", "/page/a/b"],
)
async def test_nothing_else_is_served(path: str) -> None:
    async with page() as (_, client):
        response = await request(client, path)

    assert (response.status, response.error_code) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/models", "/pages", "/page", "//", "/index.html"])
async def test_other_paths_are_left_to_the_gateway(path: str) -> None:
    async with page() as (_, client):
        response = await request(client, path)

    assert f"no path {path}".encode() in response.body


async def test_the_state_is_never_stored_by_a_browser() -> None:
    async with page() as (gateway, client):
        gateway.models = all_states()
        response = await request(client, "/page/state.json")

    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert len(json.loads(response.body)["models"]) == len(gateway.models)


async def test_with_api_keys_the_state_requires_one_and_the_files_do_not() -> None:
    async with page() as (gateway, client):
        gateway.models = all_states()
        gateway.keys = {"secret": ["nomic-embed"]}
        files = [await request(client, address(name)) for name in FILES]
        without = await request(client, "/page/state.json")
        wrong = await request(client, "/page/state.json", "Authorization: Bearer other")

    assert [file.status for file in files] == [200] * len(FILES)
    for response in (without, wrong):
        assert (response.status, response.error_code) == (401, "invalid_api_key")
        assert b"nomic" not in response.body


async def test_a_key_shows_its_own_models_only() -> None:
    async with page() as (gateway, client):
        gateway.models = all_states()
        gateway.keys = {"alice": ["nomic-embed"], "bob": ["gemma-3-27b"]}
        states = [
            json.loads(
                (await request(client, "/page/state.json", f"Authorization: Bearer {key}")).body
            )
            for key in ("alice", "bob", "alice")
        ]

    names = [[model["name"] for model in state["models"]] for state in states]
    assert names == [["nomic-embed"], ["gemma-3-27b"], ["nomic-embed"]]
    assert states[0]["modelCount"] == 1
    assert states[0]["history"] == []


def test_many_open_pages_cost_one_state_in_a_second() -> None:
    built: list[str] = []
    time = 0.0

    def state(key: str) -> object:
        built.append(key)
        return {"key": key, "build": len(built)}

    page = Page(lambda request: request.target.decode(), state, lambda: time)

    def bodies(*keys: str) -> list[bytes]:
        return [page._response(request_of(key), b"/page/state.json").body for key in keys]

    first = bodies("a", "a", "b", "a")
    time = CACHE_SECONDS
    second = bodies("a", "b")

    assert built == ["a", "b", "a", "b"]
    assert first[0] == first[1] == first[3] != first[2]
    assert second[0] != first[0]
    assert len(page._states) == 2


def test_states_of_keys_without_an_open_page_are_dropped() -> None:
    time = 0.0
    page = Page(lambda request: request.target.decode(), lambda key: key, lambda: time)
    for number in range(1000):
        page._response(request_of(str(number)), b"/page/state.json")
        time += CACHE_SECONDS / 10

    assert len(page._states) <= 11


def test_a_failing_state_is_not_kept() -> None:
    failing = True

    def state(_: str) -> object:
        if failing:
            raise HttpError(503, "not_ready", "the models are not listed yet")
        return {}

    page = Page(lambda _: "", state, lambda: 0.0)
    with pytest.raises(HttpError):
        page._response(request_of(""), b"/page/state.json")
    failing = False

    assert page._response(request_of(""), b"/page/state.json").body == b"{}"


def request_of(target: str) -> Request:
    return Request(b"GET", target.encode(), [], http11=True, keep_alive=True)
