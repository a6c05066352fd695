"""A Kubernetes API server over HTTPS, as raw JSON."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import getproxies

import aiohttp

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.kube.cluster import (
    ApiError,
    Conflict,
    Kind,
    Listing,
    Manifest,
    NotFound,
    WatchEvent,
)
from slotkeeper.kube.endpoint import Endpoint, connect
from slotkeeper.kube.errors import api_error, error_from_response, unreachable
from slotkeeper.kube.kinds import kind_of

JSON = "application/json"
READ = {"Accept": JSON}
METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# JSON is YAML, and the API server takes an apply under this name only.
APPLY = "application/apply-patch+yaml"

LONGEST_REQUEST = 30.0
CONNECT_SECONDS = 10.0

CONNECTIONS = 100
"""At the same time: sixteen workers, a watch for each kind, and what else is written."""

LONGEST_LINE = 2**21
"""Bytes of one watch event: an object may have 1.5 MiB in etcd."""

PAGE = 100
"""Objects that a page of a listing has: a few hundred kilobytes, read in some 10 ms."""

WATCH_SECONDS = 300
"""How long the server keeps a watch open; then the reader goes on with a new one."""

SILENCE_SECONDS = 70.0
"""How long a watch may say nothing before the reader goes on with a new one: TCP alone would notice
a dead stream only after a quarter of an hour. A little more than the minute after which bookmarks
come, for they keep the version to go on from fresh."""

# ValueError is what cut JSON, or a line beyond aiohttp's bound, comes out as.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class ApiCluster:
    """A `Cluster` that is a real API server. Close it, or use it in `async with`."""

    def __init__(
        self,
        endpoint: Endpoint,
        manager: str = FIELD_MANAGER,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._manager = manager
        self._request_bounds = aiohttp.ClientTimeout(
            total=min(LONGEST_REQUEST, silence), sock_connect=CONNECT_SECONDS
        )
        self._watch_bounds = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=silence
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=endpoint.tls),
            headers={"User-Agent": manager},
            # Where there is no proxy, aiohttp need not look for one in a thread at each request.
            trust_env=bool(getproxies()),
            read_bufsize=LONGEST_LINE,
        )

    @classmethod
    async def connect(cls, manager: str = FIELD_MANAGER, silence: float = SILENCE_SECONDS) -> Self:
        """The cluster of `KUBECONFIG`, else the one this pod runs in, else of ~/.kube/config.

        `manager` owns the fields that are applied. After `silence` seconds without a byte a watch
        ends, and a request fails, if not before. Raises what `endpoint.connect` does.
        """
        return cls(await connect(), manager, silence)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """See Cluster."""
        try:
            return await self._json("GET", _path(kind, namespace, name))
        except NotFound:
            return None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
    ) -> Listing:
        """See Cluster."""
        query = {"labelSelector": _selector(labels), "fieldSelector": _named(name)}
        accept = METADATA if kind.metadata_only else JSON
        found = await self._json("GET", _path(kind, namespace), query, accept=accept)
        return _listing(kind, found)

    async def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        """See Cluster."""
        query = {"labelSelector": _selector(labels), "limit": str(PAGE)}
        while True:
            found = await self._json("GET", _path(kind, namespace), query)
            yield _listing(kind, found)
            query["continue"] = found["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    async def create(self, manifest: Manifest) -> Manifest:
        """See Cluster."""
        path = _path(kind_of(manifest), manifest["metadata"]["namespace"])
        return await self._json("POST", path, {"fieldManager": self._manager}, body=manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        """See Cluster."""
        return await self._apply(manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> None:
        """See Cluster."""
        options: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", _path(kind, namespace, name), body=options)
        except NotFound:
            return

    async def patch_status(self, manifest: Manifest) -> Manifest:
        """See Cluster."""
        # An apply rather than a merge patch: a field that the new status leaves out goes away.
        metadata = {
            key: value
            for key, value in manifest["metadata"].items()
            if key in {"name", "namespace", "resourceVersion"}
        }
        status = {key: manifest[key] for key in ("apiVersion", "kind", "status")}
        return await self._apply({**status, "metadata": metadata}, "status")

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """See Cluster."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": resource_version,
            "labelSelector": _selector(labels),
            "fieldSelector": _named(name),
        }
        path = _path(kind, namespace)
        try:
            response = await self._request("GET", path, query, timeout=self._watch_bounds)
            try:
                async for line in response.content:
                    yield _event(json.loads(line))
            except aiohttp.SocketTimeoutError:
                return
            finally:
                response.close()
        except _BROKEN as error:
            raise unreachable("GET", path, error) from error

    async def _apply(self, manifest: Manifest, subresource: str = "") -> Manifest:
        metadata = manifest["metadata"]
        path = _path(kind_of(manifest), metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": self._manager, "force": "true"}
        try:
            return await self._json("PATCH", path, query, body=manifest, content_type=APPLY)
        except ApiError as error:
            # That is how it says that the object of this name has another uid.
            if "uid" in metadata and error.status == 422 and "metadata.uid" in error.message:
                raise Conflict(409, "Conflict", error.message) from error
            raise

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Manifest:
        try:
            response = await self._request(
                method,
                path,
                query or {},
                body=body,
                headers={"Accept": accept, "Content-Type": content_type},
            )
            found: Manifest = json.loads(await response.read())
        except _BROKEN as error:
            raise unreachable(method, path, error) from error
        return found

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Manifest | None = None,
        headers: Mapping[str, str] = READ,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 (aiohttp's, no cancel scope)
    ) -> aiohttp.ClientResponse:
        set_values = urlencode({key: value for key, value in query.items() if value})
        target = f"{path}?{set_values}" if set_values else path
        sent = dict(headers)
        if self._endpoint.authorization and (value := await self._endpoint.authorization()):
            sent["Authorization"] = value
        response = await self._session.request(
            method,
            self._endpoint.url + target,
            headers=sent,
            data=None if body is None else json.dumps(body).encode(),
            proxy=self._endpoint.proxy,
            server_hostname=self._endpoint.tls_server_name,
            timeout=timeout or self._request_bounds,
        )
        if response.status >= 400:
            raise error_from_response(response.status, await response.read())
        return response


def _path(kind: Kind, namespace: str | None, *rest: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    scope = ("namespaces", namespace) if namespace is not None else ()
    return "/".join([root, *scope, kind.plural, *(part for part in rest if part)])


def _listing(kind: Kind, found: Manifest) -> Listing:
    # The items of a built-in kind come without these two.
    named = {"apiVersion": kind.api_version, "kind": kind.kind}
    items = [named | item for item in found.get("items") or []]
    return Listing(items, found["metadata"]["resourceVersion"])


def _selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())


def _named(name: str) -> str:
    return f"metadata.name={name}" if name else ""


def _event(line: dict[str, Any]) -> WatchEvent:
    event = WatchEvent(line["type"], line["object"])
    if event.type == "ERROR":
        raise api_error(event.object.get("code", 0), event.object)
    return event
