"""ApiCluster with a fake API server: errors, lists, watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from slotkeeper.kube.client import (
    IDLE_TIMEOUT,
    MAX_OBJECT_BYTES,
    PAGE_BYTES,
    ApiCluster,
    TooLarge,
)
from slotkeeper.kube.cluster import (
    UNREADABLE,
    ApiError,
    Cluster,
    Conflict,
    Gone,
    NotFound,
    Unreachable,
)
from slotkeeper.kube.endpoint import Endpoint
from slotkeeper.kube.kinds import NODES, PODS, SERVICES

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


def large_pods(count: int, size: int) -> tuple[Handler, list[tuple[str, int]]]:
    """An API server with pods of this many bytes, and a record of (continue, limit)."""
    requests = list[tuple[str, int]]()

    async def handle(request: web.Request) -> web.Response:
        start, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        requests.append((request.query.get("continue", ""), limit))
        end = min(count, start + limit)
        items = [{"metadata": {"name": f"p{i}"}, "spec": "x" * size} for i in range(start, end)]
        more = str(end) if end < count else ""
        return web.json_response(
            {"items": items, "metadata": {"resourceVersion": "7", "continue": more}}
        )

    return handle, requests


async def test_a_page_of_large_objects_has_fewer_of_them() -> None:
    handle, requests = large_pods(12, 1_400_000)

    async with fake_api(handle) as cluster:
        pages = [page async for page in cluster.pages(PODS, None, None)]

    names = [item["metadata"]["name"] for page in pages for item in page.items]
    assert names == [f"p{number}" for number in range(12)]
    assert max(len(page.items) for page in pages) * 1_400_000 <= PAGE_BYTES
    # No more than these are wasted.
    assert requests[:3] == [("", 100), ("", 25), ("", 6)]
    assert len(requests) < 10


async def test_an_object_larger_than_any_can_be_is_an_error() -> None:
    handle, _ = large_pods(1, MAX_OBJECT_BYTES)

    async with fake_api(handle) as cluster:
        with pytest.raises(TooLarge, match="more than"):
            [page async for page in cluster.pages(PODS, None, None)]
        with pytest.raises(TooLarge):
            await cluster.list(PODS)


async def test_an_event_larger_than_any_can_be_ends_the_watch() -> None:
    event = {"type": "ADDED", "object": {"metadata": {}, "spec": "x" * MAX_OBJECT_BYTES}}

    async with fake_api(lines(event)) as cluster:
        with pytest.raises(Unreachable, match="more than"):
            [seen async for seen in cluster.watch(PODS, "n", None, "7")]


DEEP = "[" * 9_000 + "]" * 9_000
DEEP_POD = f'{{"metadata": {{"name": "deep"}}, "spec": {DEEP}}}'


async def test_a_deep_object_is_an_outline_wherever_it_is_read() -> None:
    async def handle(request: web.Request) -> web.Response:
        if "watch" in request.query:
            return web.Response(text=f'{{"type": "ADDED", "object": {DEEP_POD}}}\n')
        if "limit" in request.query:
            metadata = '{"resourceVersion": "7"}'
            return web.Response(text=f'{{"items": [{DEEP_POD}], "metadata": {metadata}}}')
        return web.Response(text=DEEP_POD)

    async with fake_api(handle) as cluster:
        listed = (await cluster.list(PODS)).items
        watched = [event.object async for event in cluster.watch(PODS, "n", None, "7")]
        read = await cluster.get(PODS, "n", "deep")

    assert read is not None
    for item in (*listed, *watched, read):
        assert item["metadata"] == {"name": "deep"}
        assert item[UNREADABLE]


async def test_a_deep_error_has_the_response_as_its_message() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=500, text=DEEP)

    async with fake_api(handle) as cluster:
        with pytest.raises(ApiError):
            await cluster.get(PODS, "n", "a")


async def test_neither_a_redirect_nor_compression_is_accepted() -> None:
    seen = list[str]()

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        assert request.headers["Accept-Encoding"] == "identity"
        raise web.HTTPFound("/elsewhere")

    async with fake_api(handle) as cluster:
        with pytest.raises(ApiError) as raised:
            await cluster.get(PODS, "n", "a")

    assert raised.value.status == 302
    assert seen == ["/api/v1/namespaces/n/pods/a"]


async def test_of_some_kinds_only_the_metadata_is_read() -> None:
    accepted = list[str]()
    partial = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"}
    item = {**partial, "metadata": {"name": "a"}}

    async def handle(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        if "watch" in request.query:
            return web.Response(text=json.dumps({"type": "ADDED", "object": item}) + "\n")
        return web.json_response({"items": [item], "metadata": {"resourceVersion": "7"}})

    async with fake_api(handle) as cluster:
        listed = (await cluster.list(NODES)).items
        watched = [event.object async for event in cluster.watch(NODES, None, None, "7")]

    type_meta = {"apiVersion": "v1", "kind": "Node"}
    assert listed == watched == [{**type_meta, "metadata": {"name": "a"}}]
    assert ["PartialObjectMetadataList;" in accepted[0], "Metadata;" in accepted[1]] == [True] * 2


@pytest.mark.parametrize("body", ["{}", "[]", "1", '{"metadata": 1}', '{"metadata": {}}'])
async def test_what_is_no_list_is_unreachable(body: str) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with fake_api(handle) as cluster:
        with pytest.raises(Unreachable):
            await cluster.list(PODS)


async def test_the_start_of_a_log_is_requested_with_its_limit() -> None:
    requested: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        requested.append(request)
        # A server that ignores the limit.
        return web.Response(body=b"\xff\n" * 100, content_type="text/plain")

    async with fake_api(handle) as cluster:
        log = await cluster.start_of_log("n", "a", "llama-server", 150)

    assert log == b"\xff\n" * 75
    [request] = requested
    assert request.path == "/api/v1/namespaces/n/pods/a/log"
    assert dict(request.query) == {"container": "llama-server", "limitBytes": "150"}
    assert request.headers["Accept"] == "application/json, */*"


async def test_a_log_far_above_its_limit_and_an_error_are_errors() -> None:
    async def endless(_: web.Request) -> web.Response:
        return web.Response(body=b"a" * 10_000)

    async with fake_api(endless) as cluster:
        with pytest.raises(TooLarge):
            await cluster.start_of_log("n", "a", "llama-server", 100)
    async with fake_api(status(403, "Forbidden", "not allowed")) as cluster:
        with pytest.raises(ApiError, match="not allowed"):
            await cluster.start_of_log("n", "a", "llama-server", 100)
