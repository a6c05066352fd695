"""kopf's HTTP session: responses are bounded and decoded object by object, as in our own client.

kopf itself reads bodies of any size, decodes a list as a whole, and ends with the first response
that it cannot decode.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar, cast

import aiohttp
import kopf
from typing_extensions import override

from slotkeeper.kube.client import MAX_OBJECT_BYTES, TooLarge, lines, read_body
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.decode import decode_event, decode_list
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.reconcile.watch.kept import kept

CHUNK = 10
"""Servers in one response of a list: together they have no more than MAX_OBJECT_BYTES, as each has
1.5 MiB in etcd at most."""

FORBIDDEN_SECONDS = 10.0
"""Until another try in a namespace where requests are forbidden."""

log = logging.getLogger(__name__)


def session(
    info: kopf.ConnectionInfo, forbidden_seconds: float = FORBIDDEN_SECONDS
) -> kopf.AiohttpSession:
    """Return a session with these credentials. kopf closes it."""

    class Response(BoundedResponse):
        pause = forbidden_seconds

    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers={**info.as_http_headers(), "Accept-Encoding": "identity"},
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
        ),
    )


class BoundedResponse(aiohttp.ClientResponse):
    """A response of the API server. kopf calls its `json`, or `content.iter_chunked` of a watch."""

    pause: ClassVar[float]
    """Seconds until a request that is forbidden in one namespace ends."""

    @override
    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        if self.status == 403 and "/namespaces/" in self.url.path:
            # For kopf it is fatal. One namespace that was deleted, or whose administrator deleted
            # the operator's permissions, must not end the work in the others.
            log.warning("may not list or watch %s", self.url.path)
            await asyncio.sleep(self.pause)
            # kopf begins anew.
            raise aiohttp.ClientPayloadError(f"forbidden: {self.url.path}")
        if self.url.query.get("watch") and self.status == 200:
            self.content = cast("aiohttp.StreamReader", _BoundedEvents(self.content))
        return self

    @override
    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = await read_body(self, MAX_OBJECT_BYTES)
            except TooLarge as error:
                # kopf waits and begins anew.
                raise aiohttp.ClientPayloadError(str(error)) from error
        return self._body

    @override
    async def json(self, **_: Any) -> Any:
        body = await self.read()
        try:
            tree = decode_list(body)
        except ValueError as error:
            if self.status >= 400:
                # kopf then reads the error as text.
                raise json.JSONDecodeError(str(error), "", 0) from error
            raise aiohttp.ClientPayloadError(str(error)) from error
        if "items" in tree:
            tree["items"] = [_shortened(item) for item in tree["items"] or ()]
        return tree


class _BoundedEvents:
    """A watch's stream of events, each within bounds. All else is the stream's own."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        try:
            async for line in lines(self._content, MAX_OBJECT_BYTES):
                event = decode_event(line)
                event["object"] = _shortened(event["object"])
                yield json.dumps(event).encode() + b"\n"
        except ValueError as error:
            raise aiohttp.ClientPayloadError(str(error)) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


def _shortened(item: Manifest) -> Manifest:
    """What is kept of a server; other objects are as they are."""
    metadata = item.get("metadata", {})
    if item.get("kind") != LLAMA_SERVERS.kind or "uid" not in metadata:
        return item
    short = kept(LLAMA_SERVERS, item).manifest
    version = {"resourceVersion": metadata["resourceVersion"]}
    return {**short, "metadata": {**short["metadata"], **version}}
