"""The upstream side: pooled connections to a replica, responses that pass through."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Protocol, cast

import httptools
from typing_extensions import override

from slotkeeper.error_text import describe
from slotkeeper.wire.framing import BadResponse, Framing, framing_of
from slotkeeper.wire.message import Headers, ResponseHead, value_of
from slotkeeper.wire.sockets import Pausable, tune

_MAX_HEAD = 64 * 1024
_MAX_INFORMATIONAL = 16
"""Responses such as 103 before one response. Otherwise a server could send them for minutes."""
# llhttp also accepts RTSP, status 099, and control characters in the reason phrase.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_MAX_DIGITS = 20
_MAX_CACHED_HEAD = 1024  # bytes of a response head whose parse result is cached
_MAX_COPY = 64 * 1024  # bytes of a body up to which one write of a copy is cheaper than two writes


class Receiver(Protocol):
    """Callbacks for one response."""

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Handle the head; `more`: bytes of the body arrived with it, and on_body follows now."""

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Handle a piece of the body as received; `framing.payload()` returns its content."""

    def on_end(self) -> None:
        """Handle the end of the response. The connection may already carry another request."""

    def on_lost(self, reason: str, *, began: bool) -> None:
        """Handle a connection lost before the end; `began`: part of the response arrived."""


class UpstreamConnection(Pausable):
    """One connection to a replica, one request at a time."""

    def __init__(self, pool: "Pool") -> None:
        self.reused = False
        """It carried a request before, so the replica may be closing it at this moment."""
        self.malformed = False
        """The replica sent invalid HTTP."""
        self._pool = pool
        self._receiver: Receiver | None = None
        self._framing: Framing | None = None
        self._head = b""
        self._informational = 0
        self._began = False
        self._to_head = False
        self._keep = False
        self._unsent: deque[bytes] = deque()
        self._on_sent: Callable[[], None] | None = None
        self._incomplete = False  # more of the request's body follows
        self._on_write_paused: Callable[[bool], None] | None = None
        self._write_paused = False  # the replica reads more slowly than the request is written

    def send(
        self,
        head: bytes,
        body: Sequence[bytes],
        receiver: Receiver,
        *,
        to_head: bool = False,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        """Send a request, with its body in parts; `to_head`: its method is HEAD.

        `on_sent` is called when the parts of the body are no longer needed, if that happens before
        the response ends.
        """
        self._on_sent = on_sent
        self._on_write_paused = None
        self._incomplete = False
        self._receiver = receiver
        self._framing = None
        self._began = False
        self._to_head = to_head
        if not body:
            self._transport.write(head)
            self._body_sent()
        elif len(body) == 1 and len(body[0]) <= _MAX_COPY:
            self._transport.write(head + body[0])
            self._body_sent()
        else:
            self._transport.write(head)
            self._unsent.extend(body)
            self._send_part()

    def begin(
        self, head: bytes, receiver: Receiver, on_write_paused: Callable[[bool], None]
    ) -> None:
        """Send the head of a request whose body follows with `write`, up to `end_body`.

        `on_write_paused` is called with True when the other side reads more slowly than that.
        """
        self.send(head, (), receiver)
        self._incomplete = True
        self._on_write_paused = on_write_paused

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def end_body(self) -> None:
        """Mark the request as sent."""
        self._incomplete = False
        self._on_write_paused = None

    def abort(self) -> None:
        """Drop the request and the connection at once, without a further call of its receiver."""
        self._receiver = self._on_sent = self._on_write_paused = None
        self._unsent.clear()
        self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether the connection can carry another request."""
        return not self._transport.is_closing()

    # asyncio.Protocol callbacks.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket's options."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        tune(transport)

    @override
    def data_received(self, data: bytes) -> None:
        """Pass pieces of the response to its receiver."""
        receiver = self._receiver
        if receiver is None:
            # No request is in progress. The bytes must not be read as the next response.
            self._transport.abort()
            return
        try:
            framing = self._framing
            if framing is None:
                self._began = True
                data = self._read_head(data, receiver)
                framing = self._framing
                if framing is None or self._receiver is not receiver:
                    return  # incomplete, or aborted by on_head
            end = framing.feed(data)
        except BadResponse as error:
            self._fail(f"invalid HTTP response: {error}")
            return
        if end is None:
            if data:
                receiver.on_body(data, framing)
        else:
            self._read_end(data, end, framing, receiver)

    @override
    def eof_received(self) -> bool | None:
        """Close the connection: the replica sends no more."""
        return None

    @override
    def pause_writing(self) -> None:
        """Stop sending the body: the transport's write buffer is full."""
        self._write_paused = True
        if self._on_write_paused:
            self._on_write_paused(True)

    @override
    def resume_writing(self) -> None:
        """Continue sending the body: the transport's write buffer has drained."""
        self._write_paused = False
        if self._on_write_paused:
            self._on_write_paused(False)
        if self._unsent:
            asyncio.get_running_loop().call_soon(self._send_part)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End the response, if its framing permits, or report it as lost."""
        self._unsent.clear()
        self._pool.closed(self)
        receiver = self._receiver
        self._receiver = self._on_sent = None
        if receiver is None:
            return
        if exc is None and self._framing is not None and self._framing.until_close:
            receiver.on_end()
        else:
            reason = describe(exc) if exc else "connection closed by the replica"
            receiver.on_lost(reason, began=self._began)

    def _send_part(self) -> None:
        # One part in each iteration of the event loop: sending 5 MB at once takes milliseconds.
        if self._unsent and not self._write_paused:
            self._transport.write(self._unsent.popleft())
            if not self._unsent:
                self._body_sent()
            elif not self._write_paused:
                asyncio.get_running_loop().call_soon(self._send_part)

    def _body_sent(self) -> None:
        on_sent = self._on_sent
        self._on_sent = None
        if on_sent:
            on_sent()

    def _read_head(self, data: bytes, receiver: Receiver) -> bytes:
        data = self._head + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > _MAX_HEAD:
                    raise BadResponse(f"headers exceed {_MAX_HEAD} bytes")
                self._head = data
                return b""
            head = parse_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                raise BadResponse("unexpected switch of protocols")
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL:
                raise BadResponse(f"more than {_MAX_INFORMATIONAL} informational responses")
        self._head = b""
        self._informational = 0
        self._framing = framing_of(head, to_head=self._to_head)
        self._keep = head.keeps_connection and not self._framing.until_close
        receiver.on_head(head, self._framing, more=bool(data))
        return data

    def _read_end(self, data: bytes, end: int, framing: Framing, receiver: Receiver) -> None:
        if end:
            receiver.on_body(data if end == len(data) else data[:end], framing)
        if self._receiver is not receiver:
            return  # aborted by on_body
        self._receiver = self._on_sent = None
        # A replica that responds before it has read the whole request may not read the rest.
        if self._keep and end == len(data) and not (self._unsent or self._incomplete):
            self.pause(False)
            self._pool.release(self)
        else:
            self._unsent.clear()
            self._transport.abort()
        receiver.on_end()

    def _fail(self, reason: str) -> None:
        receiver = self._receiver
        self._receiver = self._on_sent = None
        self._unsent.clear()
        self.malformed = True
        self._transport.abort()
        if receiver:
            receiver.on_lost(reason, began=True)


Opener = Callable[[Callable[[], UpstreamConnection]], Awaitable[UpstreamConnection]]
"""Opens a connection, with the protocol that the argument creates. Raises OSError."""


class Pool:
    """The connections to one replica. Reuses the most recently used idle connection.

    `opener` replaces the plain TCP connection to `host` and `port`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        max_idle: int = 8,
        connect_seconds: float = 3,
        tls: ssl.SSLContext | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.max_idle = max_idle
        """llama-server has few more HTTP threads than slots, and an idle connection holds one."""
        self._host = host
        self._port = port
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._opener = opener
        self._idle: list[UpstreamConnection] = []
        self._closed = False

    def acquire(self) -> UpstreamConnection | None:
        """Take an idle connection from the pool; None if there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.reused = True
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a new connection. Raises OSError, of which TimeoutError is a subclass."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_seconds):
            if self._opener:
                return await self._opener(lambda: UpstreamConnection(self))
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), self._host, self._port, ssl=self._tls
            )
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Return a connection to the pool. Beyond `max_idle` it is closed."""
        if self._closed or len(self._idle) >= self.max_idle:
            connection.abort()
        else:
            self._idle.append(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """Remove a closed connection from the pool."""
        if connection in self._idle:
            self._idle.remove(connection)

    def drop_idle(self) -> None:
        """Close idle connections, for example because the replica may have restarted."""
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Close idle connections now, and busy ones when their response ends."""
        self._closed = True
        self.drop_idle()


class _HeadParser:
    def __init__(self) -> None:
        self.headers: Headers = []
        self.reason = b""

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))


def parse_head(data: bytes) -> ResponseHead:
    """Parse a response's head, including the empty line that ends it. Raises BadResponse.

    The heads of all streams of a replica are the same bytes, so results are cached.
    """
    return _parse_cached(data) if len(data) <= _MAX_CACHED_HEAD else _parse(data)


def _parse(data: bytes) -> ResponseHead:
    events = _HeadParser()
    parser = httptools.HttpResponseParser(events)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise BadResponse("unexpected switch of protocols") from None
    except httptools.HttpParserError as error:
        raise BadResponse(str(error)) from None
    if not _STATUS_LINE.match(data):
        raise BadResponse("invalid status line, expected HTTP/1.1 or HTTP/1.0")
    if len(value_of(events.headers, b"content-length") or b"") > _MAX_DIGITS:
        raise BadResponse(f"Content-Length exceeds {_MAX_DIGITS} digits")
    version = parser.get_http_version()
    return ResponseHead(parser.get_status_code(), events.reason, events.headers, version == "1.1")


_parse_cached = lru_cache(maxsize=64)(_parse)
