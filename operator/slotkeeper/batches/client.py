"""Requests to the gateway, as its clients send them: with the API key of the batch's owner."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from slotkeeper import bounded_json
from slotkeeper.edge.access import PREEMPTIBLE
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.error_text import describe
from slotkeeper.flags import Address
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead, value_of
from slotkeeper.wire.sockets import join

_log = logging.getLogger(__name__)

MAX_RESPONSE = 16 * 1024**2
"""Bytes of one response."""
MAX_RECEIVED = 64 * 1024**2
"""Bytes of all responses that arrive at the same time. At this limit one of several is given up."""
_MAX_IDLE = 64
_CONNECT_SECONDS = 5.0
_MODELS_SECONDS = 10.0
_RESPONSE_SECONDS = 3600.0
"""The gateway has a shorter timeout. This one ends requests to a gateway that hangs."""


class KeyRing(ApiKeys):
    """The accepted API keys, with the secrets: each batch is sent with its owner's."""

    def __init__(self, salt: bytes) -> None:
        super().__init__(salt)
        self.secrets: Mapping[str, bytes] = {}

    @override
    def replace(self, keys: Mapping[str, bytes]) -> None:
        super().replace(keys)
        self.secrets = dict(keys)


class Reply(NamedTuple):
    """A response of the gateway."""

    status: int
    body: bytes
    retry_after: float | None = None
    request_id: str | None = None
    is_stream: bool = False
    """Its body consists of server-sent events."""


class ResponseTooLarge(OSError):  # noqa: N818 (the response is too large; nothing failed here)
    """The response is longer than MAX_RESPONSE."""


class ResponsesFull(OSError):  # noqa: N818 (the memory is full; nothing failed here)
    """The responses that arrive at the same time are longer than MAX_RECEIVED."""


class Interrupted(OSError):  # noqa: N818 (it may have yielded to another request)
    """A stream has begun, and ended before it was complete."""


class GatewayClient:
    """Sends requests. `ca`: file with the certificate that the gateway has; None: no TLS.

    The certificate is for the name that clients use, which need not be the Service's. So the
    gateway is recognized by the certificate itself, which only its Secret contains the key of.
    """

    def __init__(self, address: Address, ca: Path | None = None) -> None:
        self._address = address
        self._ca = ca
        self.received = 0
        """Bytes of responses that are arriving."""
        self._loaded: bytes | None = None
        self._pool = self._create_pool()

    async def post(self, path: str, body: bytes, secret: bytes | None) -> Reply:
        """Send a request of a batch. Raises OSError."""
        head = b"POST %s HTTP/1.1\r\n%s: true\r\nContent-Type: application/json\r\n"
        head %= path.encode(), PREEMPTIBLE
        return await self._send(head, body, secret, _RESPONSE_SECONDS)

    async def models(self, secret: bytes | None) -> frozenset[str]:
        """Return the names that may be requested. Raises OSError."""
        reply = await self._send(b"GET /v1/models HTTP/1.1\r\n", b"", secret, _MODELS_SECONDS)
        if reply.status != 200:
            raise OSError(f"the gateway's list of models: status {reply.status}")
        try:
            tree = bounded_json.parse(reply.body, max_bytes=MAX_RESPONSE)
            return frozenset(str(each["id"]) for each in tree["data"])
        except (ValueError, KeyError, TypeError):
            raise OSError("the gateway's list of models is invalid") from None

    def reload(self) -> None:
        """Read the certificate again: it may have been renewed."""
        if self._ca is None:
            return
        try:
            if self._ca.read_bytes() == self._loaded:
                return
            pool = self._create_pool()
        except (OSError, ssl.SSLError) as error:
            _log.warning("cannot read the certificate %s: %s", self._ca, describe(error))
            return
        self._pool.close()
        self._pool = pool

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def _create_pool(self) -> Pool:
        context = None
        if self._ca is not None:
            self._loaded = self._ca.read_bytes()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(cadata=self._loaded.decode())
        host, port = self._address
        return Pool(host, port, max_idle=_MAX_IDLE, connect_seconds=_CONNECT_SECONDS, tls=context)

    async def _send(
        self, request_line: bytes, body: bytes, secret: bytes | None, seconds: float
    ) -> Reply:
        lines = [request_line, b"Host: %s\r\n" % join(*self._address).encode()]
        if secret is not None:
            lines.append(b"Authorization: Bearer %s\r\n" % secret)
        lines.append(b"User-Agent: slotkeeper-batches\r\nContent-Length: %d\r\n\r\n" % len(body))
        async with asyncio.timeout(seconds):
            connection = self._pool.acquire() or await self._pool.connect()
            collector = _Collector(self, connection)
            try:
                connection.send(b"".join(lines), [body] if body else [], collector)
                return await collector.result
            finally:
                if not collector.ended:
                    connection.abort()
                self.received -= collector.size


class _Collector:
    def __init__(self, client: GatewayClient, connection: UpstreamConnection) -> None:
        self.ended = False
        self.size = 0
        self._client = client
        self.result: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._head: ResponseHead | None = None
        self._body: list[bytes] = []

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:  # noqa: ARG002
        self._head = head

    def on_body(self, data: bytes, framing: Framing) -> None:  # noqa: ARG002
        payload = framing.payload()
        self.size += len(payload)
        self._client.received += len(payload)
        if self.size > MAX_RESPONSE:
            self._give_up(ResponseTooLarge(f"the response exceeds {MAX_RESPONSE} bytes"))
        elif self.size < self._client.received > MAX_RECEIVED:
            self._give_up(ResponsesFull("too many responses at the same time"))
        else:
            self._body.append(payload)

    def on_end(self) -> None:
        head = self._head
        if head is None:
            return
        retry_after = value_of(head.headers, b"retry-after") or b""
        request_id = value_of(head.headers, b"x-request-id")
        reply = Reply(
            head.status,
            b"".join(self._body),
            float(retry_after) if retry_after.isdigit() and len(retry_after) < 7 else None,
            request_id.decode(errors="replace")[:128] if request_id else None,
            _is_stream(head),
        )
        self._finish(lambda: self.result.set_result(reply))

    def on_lost(self, reason: str, *, began: bool) -> None:  # noqa: ARG002
        error: OSError = ConnectionResetError(reason)
        if self._head and _is_stream(self._head):
            error = Interrupted(reason)
        self._finish(lambda: self.result.set_exception(error))

    def _give_up(self, error: OSError) -> None:
        self._body = []
        self._finish(lambda: self.result.set_exception(error))
        self._connection.abort()

    def _finish(self, set_result: Callable[[], None]) -> None:
        self.ended = True
        if not self.result.done():
            set_result()


def _is_stream(head: ResponseHead) -> bool:
    content_type = value_of(head.headers, b"content-type") or b""
    return head.status == 200 and content_type.lower().startswith(b"text/event-stream")
