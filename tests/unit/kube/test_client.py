"""ApiCluster on an API server that is played: errors, lists, watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from slotkeeper.kube.client import SILENCE_SECONDS, ApiCluster
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Gone, NotFound, Unreachable
from slotkeeper.kube.endpoint import Endpoint
from slotkeeper.kube.kinds import PODS, SERVICES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVICE: Any = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}}


async def authorization() -> str:
    return "Bearer secret"


@asynccontextmanager
async def played(handler: Handler, silence: float = SILENCE_SECONDS) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        endpoint = Endpoint(str(server.make_url("")).rstrip("/"), authorization=authorization)
        async with ApiCluster(endpoint, silence=silence) as cluster:
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
async def test_an_error_says_what_the_api_server_said(code: int, kind: type[ApiError]) -> None:
    async with played(status(code, "Because", "it is so")) as cluster:
        with pytest.raises(kind) as raised:
            await cluster.apply(SERVICE)

    assert (raised.value.status, raised.value.reason) == (code, "Because")
    assert str(raised.value) == "it is so"


async def test_an_error_in_no_json_is_said_as_it_is() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=502, text="bad gateway\n")

    async with played(handle) as cluster:
        with pytest.raises(ApiError, match="bad gateway"):
            await cluster.apply(SERVICE)


async def test_what_is_not_there_is_none_to_get_and_quiet_to_delete() -> None:
    async with played(status(404, "NotFound", "not found")) as cluster:
        assert await cluster.get(SERVICES, "n", "a") is None
        await cluster.delete(SERVICES, "n", "a")


async def test_an_apply_is_forced_and_in_our_name() -> None:
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, dict(request.query), request.headers))
        return web.json_response(await request.json())

    async with played(handle) as cluster:
        assert await cluster.apply(SERVICE) == SERVICE

    [(method, path, query, headers)] = seen
    assert (method, path) == ("PATCH", "/api/v1/namespaces/n/services/a")
    assert query == {"fieldManager": "slotkeeper", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer secret"


async def test_a_list_gives_each_item_its_kind_and_asks_by_label() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "a=b,c"
        items = [{"metadata": {"name": "x"}}]
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})

    async with played(handle) as cluster:
        listing = await cluster.list(PODS, labels={"a": "b", "c": ""})

    assert listing.resource_version == "7"
    assert listing.items == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}]


async def test_a_watch_gives_event_after_event_and_ends_with_the_stream() -> None:
    events: list[Any] = [
        {"type": kind, "object": {"metadata": {}}} for kind in ("ADDED", "BOOKMARK")
    ]

    async with played(lines(*events)) as cluster:
        seen = [event.type async for event in cluster.watch(PODS, "n", None, "7")]

    assert seen == ["ADDED", "BOOKMARK"]


async def test_a_watch_from_too_long_ago_says_that_it_must_be_listed_again() -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}

    async with played(lines(expired)) as cluster:
        with pytest.raises(Gone, match="too old"):
            [event async for event in cluster.watch(PODS, "n", None, "7")]


async def test_a_watch_that_falls_silent_ends_in_peace_and_a_request_without_answer_does_not() -> (
    None
):
    hangs = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "watch" in request.query:
            await response.prepare(request)
            await response.write(json.dumps({"type": "ADDED", "object": SERVICE}).encode() + b"\n")
        await hangs.wait()
        return response

    async with played(handle, silence=0.05) as cluster:
        seen = [event.object async for event in cluster.watch(SERVICES, None, None, "1")]
        with pytest.raises(Unreachable):
            await cluster.get(SERVICES, "n", "a")
        hangs.set()

    assert seen == [SERVICE]


async def test_a_stream_cut_within_a_line_is_unreachable() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text='{"type": "ADD')

    async with played(handle) as cluster:
        with pytest.raises(Unreachable):
            [event async for event in cluster.watch(PODS, "n", None, "7")]


async def test_a_server_that_hangs_up_is_unreachable_with_the_path() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with played(handle) as cluster:
        with pytest.raises(Unreachable, match="/api/v1/namespaces/n/services/a"):
            await cluster.apply(SERVICE)


async def test_a_listing_comes_in_pages() -> None:
    asked = list[str]()

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.query.get("continue", ""))
        more = "next" if len(asked) == 1 else ""
        metadata = {"resourceVersion": "7", "continue": more}
        item = {"metadata": {"name": f"p{len(asked)}"}}
        return web.json_response({"metadata": metadata, "items": [item]})

    async with played(handle) as cluster:
        pages = [page async for page in cluster.pages(PODS, None, None)]

    assert asked == ["", "next"]
    assert [page.items[0]["metadata"]["name"] for page in pages] == ["p1", "p2"]
    assert {page.items[0]["kind"] for page in pages} == {"Pod"}


async def test_another_uid_than_the_one_asked_for_is_a_conflict() -> None:
    refusal = 'Service "a" is invalid: metadata.uid: Invalid value: "u": field is immutable'
    metadata = {**SERVICE["metadata"], "uid": "u"}

    async with played(status(422, "Invalid", refusal)) as cluster:
        with pytest.raises(Conflict):
            await cluster.apply({**SERVICE, "metadata": metadata})
        with pytest.raises(ApiError) as raised:
            await cluster.apply(SERVICE)

    assert raised.value.status == 422
