"""ApiCluster with a fake API server: errors, lists, watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from slotkeeper.kube.client import IDLE_TIMEOUT, ApiCluster
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Gone, NotFound, Unreachable
from slotkeeper.kube.endpoint import Endpoint
from slotkeeper.kube.kinds import PODS, SERVICES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVICE: Any = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}}


async def authorization() -> str:
    return "Bearer secret"


@asynccontextmanager
async def fake_api(handler: Handler, idle_timeout: float = IDLE_TIMEOUT) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        endpoint = Endpoint(str(server.make_url("")).rstrip("/"), authorization=authorization)
        async with ApiCluster(endpoint, idle_timeout=idle_timeout) as cluster:
            yield cluster


def status(code: int, reason: str, message: str) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"reason": reason, "message": message, "code": code}, status=code)

    return handle


def lines(*events: Any) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text="".join(json.dumps(event) + "\n" for event in events))

    return handle


@pytest.mark.parametrize(
    ("code", "kind"),
    [(409, Conflict), (410, Gone), (404, NotFound), (403, ApiError), (500, ApiError)],
)
async def test_an_error_has_the_api_servers_status_reason_and_message(
    code: int, kind: type[ApiError]
) -> None:
    async with fake_api(status(code, "Because", "it failed")) as cluster:
        with pytest.raises(kind) as raised:
            await cluster.apply(SERVICE)

    assert (raised.value.status, raised.value.reason) == (code, "Because")
    assert str(raised.value) == "it failed"


async def test_an_error_that_is_not_json_is_reported_unchanged() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=502, text="bad gateway\n")

    async with fake_api(handle) as cluster:
        with pytest.raises(ApiError, match="bad gateway"):
            await cluster.apply(SERVICE)


async def test_get_returns_none_and_delete_succeeds_if_the_object_does_not_exist() -> None:
    async with fake_api(status(404, "NotFound", "not found")) as cluster:
        assert await cluster.get(SERVICES, "n", "a") is None
        await cluster.delete(SERVICES, "n", "a")


async def test_an_apply_uses_force_and_our_field_manager() -> None:
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, dict(request.query), request.headers))
        return web.json_response(await request.json())

    async with fake_api(handle) as cluster:
        assert await cluster.apply(SERVICE) == SERVICE

    [(method, path, query, headers)] = seen
    assert (method, path) == ("PATCH", "/api/v1/namespaces/n/services/a")
    assert query == {"fieldManager": "slotkeeper", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer secret"


async def test_a_list_adds_the_kind_to_each_item_and_selects_by_label() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "a=b,c"
        items = [{"metadata": {"name": "x"}}]
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})

    async with fake_api(handle) as cluster:
        listing = await cluster.list(PODS, labels={"a": "b", "c": ""})

    assert listing.resource_version == "7"
    assert listing.items == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}]


async def test_a_watch_yields_events_and_ends_with_the_stream() -> None:
    events: list[Any] = [
        {"type": kind, "object": {"metadata": {}}} for kind in ("ADDED", "BOOKMARK")
    ]

    async with fake_api(lines(*events)) as cluster:
        seen = [event.type async for event in cluster.watch(PODS, "n", None, "7")]

    assert seen == ["ADDED", "BOOKMARK"]


async def test_a_watch_from_an_expired_version_raises_gone() -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}

    async with fake_api(lines(expired)) as cluster:
        with pytest.raises(Gone, match="too old"):
            [event async for event in cluster.watch(PODS, "n", None, "7")]


async def test_an_idle_watch_ends_normally_and_an_idle_request_is_unreachable() -> None:
    hangs = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "watch" in request.query:
            await response.prepare(request)
            await response.write(json.dumps({"type": "ADDED", "object": SERVICE}).encode() + b"\n")
        await hangs.wait()
        return response

    async with fake_api(handle, idle_timeout=0.05) as cluster:
        seen = [event.object async for event in cluster.watch(SERVICES, None, None, "1")]
        with pytest.raises(Unreachable):
            await cluster.get(SERVICES, "n", "a")
        hangs.set()

    assert seen == [SERVICE]


async def test_a_stream_that_ends_within_a_line_is_unreachable() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text='{"type": "ADD')

    async with fake_api(handle) as cluster:
        with pytest.raises(Unreachable):
            [event async for event in cluster.watch(PODS, "n", None, "7")]


async def test_a_closed_connection_is_unreachable_and_names_the_path() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with fake_api(handle) as cluster:
        with pytest.raises(Unreachable, match="/api/v1/namespaces/n/services/a"):
            await cluster.apply(SERVICE)


async def test_a_list_is_read_in_pages() -> None:
    tokens = list[str]()

    async def handle(request: web.Request) -> web.Response:
        tokens.append(request.query.get("continue", ""))
        more = "next" if len(tokens) == 1 else ""
        metadata = {"resourceVersion": "7", "continue": more}
        item = {"metadata": {"name": f"p{len(tokens)}"}}
        return web.json_response({"metadata": metadata, "items": [item]})

    async with fake_api(handle) as cluster:
        pages = [page async for page in cluster.pages(PODS, None, None)]

    assert tokens == ["", "next"]
    assert [page.items[0]["metadata"]["name"] for page in pages] == ["p1", "p2"]
    assert {page.items[0]["kind"] for page in pages} == {"Pod"}


async def test_an_apply_to_an_object_with_another_uid_is_a_conflict() -> None:
    message = 'Service "a" is invalid: metadata.uid: Invalid value: "u": field is immutable'
    metadata = {**SERVICE["metadata"], "uid": "u"}

    async with fake_api(status(422, "Invalid", message)) as cluster:
        with pytest.raises(Conflict):
            await cluster.apply({**SERVICE, "metadata": metadata})
        with pytest.raises(ApiError) as raised:
            await cluster.apply(SERVICE)

    assert raised.value.status == 422
