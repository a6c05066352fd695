"""Client of a Kubernetes API server, with objects as raw JSON."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import getproxies

import aiohttp

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.bounded_json import parse
from slotkeeper.error_text import describe
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
from slotkeeper.kube.decode import decode_event, decode_list, decode_object
from slotkeeper.kube.endpoint import Endpoint, connect
from slotkeeper.kube.kinds import PODS, kind_of

JSON = "application/json"
READ = {"Accept": JSON}
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# JSON is valid YAML, and the API server accepts an apply with this content type only.
APPLY = "application/apply-patch+yaml"

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0

MAX_CONNECTIONS = 100
"""At the same time: sixteen workers, a watch for each kind, and other writes."""

MAX_OBJECT_BYTES = 16 * 2**20
"""Of one object as JSON. In etcd it may have 1.5 MiB; an escaped character takes six times its
bytes."""

PAGE_SIZE = 100
"""Objects in a page of a list: usually a few hundred kilobytes, read in about 10 ms."""

PAGE_BYTES = 8 * 2**20
"""Of a page with more than one object. The API server limits only their number: a page that is
larger is not read to its end, but requested again with fewer objects."""

MAX_ERROR_BYTES = 2**20
"""Of the body of an error."""

WATCH_TIMEOUT = 300
"""Seconds after which the server ends a watch. The reader then starts a new one."""

IDLE_TIMEOUT = 70.0
"""Seconds without a byte after which the reader ends a watch and starts a new one: TCP alone
detects a dead stream only after a quarter of an hour. Slightly longer than the minute between
bookmarks, which keep the resource version to continue from recent."""

_ERRORS = {404: NotFound, 409: Conflict, 410: Gone}

# Truncated JSON raises ValueError.
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
            # Not compressed: the size of a body is known before it is decoded.
            headers={"User-Agent": manager, "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Without a proxy, spare aiohttp its lookup of one in a thread at each request.
            trust_env=bool(getproxies()),
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
        node: str = "",
    ) -> Listing:
        """See Cluster. `node` restricts a list of pods to those that are bound to this node."""
        items = []
        version = ""
        async for page in self._pages(kind, namespace, labels, _field_selector(name, node)):
            items += page.items
            version = page.resource_version
        return Listing(items, version)

    def pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> AsyncIterator[Listing]:
        """See Cluster."""
        return self._pages(kind, namespace, labels)

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

    async def start_of_log(self, namespace: str, pod: str, container: str, max_bytes: int) -> bytes:
        """See Cluster."""
        path = f"{_path(PODS, namespace, pod)}/log"
        query = {"container": container, "limitBytes": str(max_bytes)}
        # It is plain text, and an error is JSON.
        headers = {"Accept": f"{JSON}, */*"}
        body = await self._read("GET", path, query, headers=headers, max_bytes=2 * max_bytes)
        return body[:max_bytes]

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
        node: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """See Cluster, and `list`."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_TIMEOUT),
            "resourceVersion": resource_version,
            "labelSelector": _label_selector(labels),
            "fieldSelector": _field_selector(name, node),
        }
        path = _path(kind, namespace)
        headers = {"Accept": METADATA} if kind.metadata_only else READ
        try:
            response = await self._request(
                "GET", path, query, headers=headers, timeout=self._watch_timeout
            )
            try:
                async for line in lines(response.content, MAX_OBJECT_BYTES):
                    yield _event(kind, decode_event(line))
            except aiohttp.SocketTimeoutError:
                return
            finally:
                response.close()
        except _BROKEN as error:
            raise _unreachable("GET", path, error) from error

    async def _pages(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        fields: str = "",
    ) -> AsyncIterator[Listing]:
        path = _path(kind, namespace)
        query = {"labelSelector": _label_selector(labels), "fieldSelector": fields}
        headers = {"Accept": METADATA_LIST} if kind.metadata_only else READ
        size = PAGE_SIZE
        while True:
            query["limit"] = str(size)
            limit = PAGE_BYTES if size > 1 else MAX_OBJECT_BYTES
            try:
                body = await self._read("GET", path, query, headers=headers, max_bytes=limit)
            except TooLarge:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            response = _decoded(_decode_page, "GET", path, body)
            yield _listing(kind, response)
            query["continue"] = response["metadata"].get("continue") or ""
            if not query["continue"]:
                return
            if 2 * len(body) <= PAGE_BYTES:
                size = min(PAGE_SIZE, 2 * size)

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
    ) -> Manifest:
        headers = {"Accept": JSON, "Content-Type": content_type}
        response = await self._read(method, path, query, body=body, headers=headers)
        return _decoded(decode_object, method, path, response)

    async def _read(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | None = None,
        headers: Mapping[str, str] = READ,
        max_bytes: int = MAX_OBJECT_BYTES,
    ) -> bytes:
        try:
            response = await self._request(
                method,
                path,
                query or {},
                body=body,
                headers=headers,
            )
            return await read_body(response, max_bytes)
        except _BROKEN as error:
            raise _unreachable(method, path, error) from error

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
            allow_redirects=False,
        )
        if response.status >= 300:
            raise _error_from_response(response.status, await read_body(response, MAX_ERROR_BYTES))
        return response


class TooLarge(Unreachable):
    """A response is longer than its limit."""


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return a response's body. Raises TooLarge, without reading further, if it is longer."""
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            response.close()
            raise TooLarge(0, "TooLarge", f"response of more than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def lines(content: aiohttp.StreamReader, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, without line breaks. Raises ValueError if one is longer."""
    line = bytearray()
    async for chunk in content.iter_any():
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            line += end
            _check_length(line, max_bytes)
            yield bytes(line)
            line.clear()
        line += rest
        _check_length(line, max_bytes)
    if line:
        yield bytes(line)


def _check_length(line: bytearray, max_bytes: int) -> None:
    if len(line) > max_bytes:
        raise ValueError(f"event of more than {max_bytes} bytes")


def _path(kind: Kind, namespace: str | None, *rest: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    scope = ("namespaces", namespace) if namespace is not None else ()
    return "/".join([root, *scope, kind.plural, *(part for part in rest if part)])


def _decode_page(body: bytes) -> Manifest:
    """Decode a list. Raises ValueError if it has no resource version."""
    response = decode_list(body)
    metadata = response.get("metadata")
    if not isinstance(metadata, dict) or not str(metadata.get("resourceVersion")).isdecimal():
        raise ValueError("not a list of objects")
    return response


def _listing(kind: Kind, response: Manifest) -> Listing:
    # Items of built-in kinds lack these two fields.
    type_meta = {"apiVersion": kind.api_version, "kind": kind.kind}
    # Those of a list of metadata have another type.
    items = [{**item, **type_meta} for item in response.get("items") or []]
    return Listing(items, response["metadata"]["resourceVersion"])


def _label_selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())


def _field_selector(name: str, node: str = "") -> str:
    fields = {"metadata.name": name, "spec.nodeName": node}
    return ",".join(f"{field}={value}" for field, value in fields.items() if value)


def _event(kind: Kind, event: Mapping[str, Any]) -> WatchEvent:
    item = event["object"]
    if event["type"] == "ERROR":
        raise _error_from_status(item.get("code", 0), item)
    return WatchEvent(event["type"], {**item, "apiVersion": kind.api_version, "kind": kind.kind})


def _decoded(decode: Callable[[bytes], Manifest], method: str, path: str, body: bytes) -> Manifest:
    try:
        return decode(body)
    except ValueError as error:
        raise _unreachable(method, path, error) from error


def _error_from_response(status: int, body: bytes) -> ApiError:
    try:
        tree = parse(body, max_bytes=MAX_ERROR_BYTES)
    except ValueError:
        # A proxy's response, for example.
        tree = {"message": body.decode(errors="replace").strip()}
    return _error_from_status(status, tree if isinstance(tree, dict) else {})


def _error_from_status(code: int, status: Mapping[str, Any]) -> ApiError:
    """`status` is an object of kind Status."""
    message = status.get("message") or f"API server responded with status {code}"
    return _ERRORS.get(code, ApiError)(code, status.get("reason") or "Unknown", message)


def _unreachable(method: str, path: str, error: Exception) -> Unreachable:
    return Unreachable(0, "Unreachable", f"{method} {path}: {describe(error)}")
