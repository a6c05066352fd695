"""Client of a Kubernetes API server, with objects as raw JSON."""

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
    Gone,
    Kind,
    Listing,
    Manifest,
    NotFound,
    Unreachable,
    WatchEvent,
)
from slotkeeper.kube.endpoint import Endpoint, connect
from slotkeeper.kube.kinds import kind_of

JSON = "application/json"
READ = {"Accept": JSON}
METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# JSON is valid YAML, and the API server accepts an apply with this content type only.
APPLY = "application/apply-patch+yaml"

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0

MAX_CONNECTIONS = 100
"""At the same time: sixteen workers, a watch for each kind, and other writes."""

MAX_EVENT_BYTES = 2**21
"""Of one watch event: an object may have 1.5 MiB in etcd."""

PAGE_SIZE = 100
"""Objects in a page of a list: a few hundred kilobytes, read in about 10 ms."""

WATCH_TIMEOUT = 300
"""Seconds after which the server ends a watch. The reader then starts a new one."""

IDLE_TIMEOUT = 70.0
"""Seconds without a byte after which the reader ends a watch and starts a new one: TCP alone
detects a dead stream only after a quarter of an hour. Slightly longer than the minute between
bookmarks, which keep the resource version to continue from recent."""

_ERRORS = {404: NotFound, 409: Conflict, 410: Gone}

# Truncated JSON, and a line beyond aiohttp's limit, raise ValueError.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class ApiCluster:
    """A `Cluster` backed by a real API server. Close it, or use it in `async with`."""

    def __init__(
        self,
        endpoint: Endpoint,
        manager: str = FIELD_MANAGER,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._endpoint = endpoint
        self._manager = manager
        self._request_timeout = aiohttp.ClientTimeout(
            total=min(REQUEST_TIMEOUT, idle_timeout), sock_connect=CONNECT_TIMEOUT
        )
        self._watch_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=idle_timeout
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=endpoint.tls),
            headers={"User-Agent": manager},
            # Without a proxy, spare aiohttp its lookup of one in a thread at each request.
            trust_env=bool(getproxies()),
            read_bufsize=MAX_EVENT_BYTES,
        )

    @classmethod
    async def connect(
        cls, manager: str = FIELD_MANAGER, idle_timeout: float = IDLE_TIMEOUT
    ) -> Self:
        """Connect to the cluster of `KUBECONFIG`, else of this pod, else of ~/.kube/config.

        `manager` is the field manager of applies. After `idle_timeout` seconds without a byte a
        watch ends, and a request fails, if not before. Raises the errors of `endpoint.connect`.
        """
        return cls(await connect(), manager, idle_timeout)

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
        query = {"labelSelector": _label_selector(labels), "fieldSelector": _field_selector(name)}
        accept = METADATA if kind.metadata_only else JSON
        response = await self._json("GET", _path(kind, namespace), query, accept=accept)
        return _listing(kind, response)

    async def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        """See Cluster."""
        query = {"labelSelector": _label_selector(labels), "limit": str(PAGE_SIZE)}
        while True:
            response = await self._json("GET", _path(kind, namespace), query)
            yield _listing(kind, response)
            query["continue"] = response["metadata"].get("continue") or ""
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
        # An apply, not a merge patch, so that a field missing in the new status is removed.
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
            "timeoutSeconds": str(WATCH_TIMEOUT),
            "resourceVersion": resource_version,
            "labelSelector": _label_selector(labels),
            "fieldSelector": _field_selector(name),
        }
        path = _path(kind, namespace)
        try:
            response = await self._request("GET", path, query, timeout=self._watch_timeout)
            try:
                async for line in response.content:
                    yield _event(json.loads(line))
            except aiohttp.SocketTimeoutError:
                return
            finally:
                response.close()
        except _BROKEN as error:
            raise _unreachable("GET", path, error) from error

    async def _apply(self, manifest: Manifest, subresource: str = "") -> Manifest:
        metadata = manifest["metadata"]
        path = _path(kind_of(manifest), metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": self._manager, "force": "true"}
        try:
            return await self._json("PATCH", path, query, body=manifest, content_type=APPLY)
        except ApiError as error:
            # The API server's response if the object of this name has another uid.
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
            result: Manifest = json.loads(await response.read())
        except _BROKEN as error:
            raise _unreachable(method, path, error) from error
        return result

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
        encoded = urlencode({key: value for key, value in query.items() if value})
        target = f"{path}?{encoded}" if encoded else path
        all_headers = dict(headers)
        if self._endpoint.authorization and (value := await self._endpoint.authorization()):
            all_headers["Authorization"] = value
        response = await self._session.request(
            method,
            self._endpoint.url + target,
            headers=all_headers,
            data=None if body is None else json.dumps(body).encode(),
            proxy=self._endpoint.proxy,
            server_hostname=self._endpoint.tls_server_name,
            timeout=timeout or self._request_timeout,
        )
        if response.status >= 400:
            raise _error_from_response(response.status, await response.read())
        return response


def _path(kind: Kind, namespace: str | None, *rest: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    scope = ("namespaces", namespace) if namespace is not None else ()
    return "/".join([root, *scope, kind.plural, *(part for part in rest if part)])


def _listing(kind: Kind, response: Manifest) -> Listing:
    # Items of built-in kinds lack these two fields.
    type_meta = {"apiVersion": kind.api_version, "kind": kind.kind}
    items = [type_meta | item for item in response.get("items") or []]
    return Listing(items, response["metadata"]["resourceVersion"])


def _label_selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())


def _field_selector(name: str) -> str:
    return f"metadata.name={name}" if name else ""


def _event(line: dict[str, Any]) -> WatchEvent:
    event = WatchEvent(line["type"], line["object"])
    if event.type == "ERROR":
        raise _error_from_status(event.object.get("code", 0), event.object)
    return event


def _error_from_response(status: int, body: bytes) -> ApiError:
    try:
        tree = json.loads(body)
    except ValueError:
        # A proxy's response, for example.
        tree = {"message": body.decode(errors="replace").strip()}
    return _error_from_status(status, tree if isinstance(tree, dict) else {})


def _error_from_status(code: int, status: Mapping[str, Any]) -> ApiError:
    """`status` is an object of kind Status."""
    message = status.get("message") or f"API server responded with status {code}"
    return _ERRORS.get(code, ApiError)(code, status.get("reason") or "Unknown", message)


def _unreachable(method: str, path: str, error: Exception) -> Unreachable:
    return Unreachable(0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}")
