"""kopf's own watch of LlamaServers: hostile responses of any form end nothing."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._cogs.clients import api, errors

from slotkeeper.kube.client import MAX_OBJECT_BYTES
from slotkeeper.kube.cluster import UNREADABLE
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.reconcile.watch import kopf_watch
from slotkeeper.reconcile.watch.kept import MAX_RESOURCE_BYTES
from slotkeeper.reconcile.watch.kopf_session import session

DEEP = "[" * 9_000 + "]" * 9_000
IDENTITY = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"}


def server(spec: str) -> str:
    """A LlamaServer, as JSON, with this spec."""
    raw = {
        "apiVersion": LLAMA_SERVERS.api_version,
        "kind": LLAMA_SERVERS.kind,
        "metadata": IDENTITY,
        "spec": "SPEC",
    }
    return json.dumps(raw).replace('"SPEC"', spec)


LARGE = json.dumps({"filler": "x" * MAX_RESOURCE_BYTES})


@asynccontextmanager
async def session_to(text: str, status: int = 200) -> AsyncIterator[aiohttp.ClientSession]:
    """kopf's session with an API server that sends this response."""

    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.Response(text=text, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as started:
        info = kopf.ConnectionInfo(server=str(started.make_url("")), token="secret")
        opened = session(info, forbidden_seconds=0.01)
        assert opened.server == info.server
        async with opened.aiohttp_session as client:
            client._base_url = started.make_url("/")
            yield client


async def listed(text: str) -> Any:
    async with session_to(text) as client, client.get("/list") as response:
        return await response.json()


async def watched(text: str) -> list[Any]:
    async with session_to(text) as client, client.get("/list?watch=true") as response:
        return [json.loads(line) async for line in api.iter_jsonlines(response.content)]


@pytest.mark.parametrize("spec", [DEEP, LARGE, "1e999"])
async def test_a_hostile_server_is_an_outline_and_others_are_read(spec: str) -> None:
    good = server('{"slots": 4}')
    metadata = '{"continue": "", "resourceVersion": "9"}'

    tree = await listed(f'{{"items": [{good}, {server(spec)}], "metadata": {metadata}}}')

    assert tree["items"][0] == json.loads(good)
    assert tree["items"][1].pop(UNREADABLE)
    assert tree["items"][1]["metadata"] == IDENTITY
    assert "spec" not in tree["items"][1]
    assert tree["metadata"]["resourceVersion"] == "9"


@pytest.mark.parametrize("spec", [DEEP, LARGE, "1e999"])
async def test_a_hostile_event_is_an_outline_and_others_are_read(spec: str) -> None:
    bookmark = json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}})
    event = f'{{"type": "ADDED", "object": {server(spec)}}}'

    first, second, third = await watched(f"{bookmark}\n{event}\n{bookmark}\n")

    assert first == third == json.loads(bookmark)
    assert second["type"] == "ADDED"
    assert second["object"].pop(UNREADABLE)
    assert second["object"]["metadata"] == IDENTITY


async def test_a_lease_is_read_completely() -> None:
    lease = {"kind": LEASES.kind, "metadata": IDENTITY, "spec": {"holderIdentity": "x"}}

    events = await watched(json.dumps({"type": "ADDED", "object": lease}))

    assert events == [{"type": "ADDED", "object": lease}]


@pytest.mark.parametrize(
    "text", ['{"items": [{"a": 1}', f'{{"items": {DEEP}}}', '{"items": [1]}', "<p>"]
)
async def test_a_broken_response_is_an_error_after_which_kopf_begins_anew(text: str) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await listed(text)
    with pytest.raises(aiohttp.ClientPayloadError):
        await watched(text)


async def test_so_is_one_that_is_too_long() -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await listed(" " * (MAX_OBJECT_BYTES + 1))
    with pytest.raises(aiohttp.ClientPayloadError):
        await watched("x" * (MAX_OBJECT_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"kind": "Status", "message": "no such thing"}), "no such thing"),
        ("upstream failed", "upstream failed"),
    ],
)
async def test_an_error_of_the_api_server_is_kopfs_own(text: str, message: str) -> None:
    async with session_to(text, status=404) as client, client.get("/list") as response:
        with pytest.raises(errors.APINotFoundError, match=message):
            await errors.check_response(response)


async def test_credentials_that_the_api_server_rejected_are_not_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    [handler] = kopf_watch.registry(lambda _: None, lambda _: None)._activities.get_all_handlers()
    login: Any = handler.fn

    async def log_in(token: str) -> Any:
        config = {
            "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"token": token}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        found: Any = await login(logger=logging.getLogger(), settings=kopf_watch.settings())
        if found:
            await found.aiohttp_session.close()
        return found

    assert await log_in("old")
    assert await log_in("old") is None
    assert await log_in("new")


async def test_a_namespace_where_the_operator_has_no_permissions_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with session_to("{}", status=403) as client:
        with pytest.raises(aiohttp.ClientPayloadError, match="forbidden"):
            await client.get("/apis/slotkeeper.dev/v1alpha1/namespaces/gone/llamaservers")

        cluster_wide = await client.get("/apis/slotkeeper.dev/v1alpha1/llamaservers")

    assert cluster_wide.status == 403
    assert "may not list or watch /apis/slotkeeper.dev/v1alpha1/namespaces/gone" in caplog.text
