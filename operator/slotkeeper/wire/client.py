"""The side that talks to a replica: connections that are kept, responses that pass through."""

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, cast

import httptools
from typing_extensions import override

from slotkeeper.wire.framing import BadResponse, Framing, framing_of
from slotkeeper.wire.message import Headers, ResponseHead, value_of
from slotkeeper.wire.sockets import Pausable, tune

_MAX_HEAD = 64 * 1024
# llhttp takes RTSP's as well, status 099, and control characters in the reason.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_MAX_DIGITS = 20
_KEPT = 1024  # bytes of a head that is kept to be recognized
_COPY = 64 * 1024  # up to here one copied piece is cheaper than two


class Receiver(Protocol):
    """Whom a response is for."""

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """The head is complete; `more`: bytes of the body have come with it and follow at once."""

    def on_body(self, data: bytes, framing: Framing) -> None:
        """A piece of the body as it came; `framing.payload()` is its content."""

    def on_end(self) -> None:
        """The response is complete. The connection may be in use for another already."""

    def on_lost(self, reason: str, *, began: bool) -> None:
        """No more comes; `began`: some of the response has."""


class UpstreamConnection(Pausable):
    """One connection to a replica, one request at a time."""

    def __init__(self, pool: "Pool") -> None:
        self.reused = False
        """It has carried a request before, so that the replica may be closing it right now."""
        self.malformed = False
        """What came on it was no HTTP."""
        self._pool = pool
        self._receiver: Receiver | None = None
        self._framing: Framing | None = None
        self._head = b""
        self._began = False
        self._to_head = False
        self._keep = False
        self._unsent: deque[bytes] = deque()
        self._write_paused = False  # the replica does not keep up with what is sent

    def send(
        self, head: bytes, body: Sequence[bytes], receiver: Receiver, *, to_head: bool = False
    ) -> None:
        """Send a request with the parts of its body; `to_head`: its method is HEAD."""
        self._receiver = receiver
        self._framing = None
        self._began = False
        self._to_head = to_head
        if not body:
            self._transport.write(head)
        elif len(body) == 1 and len(body[0]) <= _COPY:
            self._transport.write(head + body[0])
        else:
            self._transport.write(head)
            self._unsent.extend(body)
            self._send_part()

    def abort(self) -> None:
        """Drop the request and the connection at once; nothing more is told to its receiver."""
        self._receiver = None
        self._unsent.clear()
        self._transport.abort()

    @property
    def usable(self) -> bool:
        """It can carry another request."""
        return not self._transport.is_closing()

    # What the transport calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        tune(transport)

    @override
    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        receiver = self._receiver
        if receiver is None:
            # Nothing was asked: whatever it is, it must not be taken for the next answer.
            self._transport.abort()
            return
        try:
            framing = self._framing
            if framing is None:
                self._began = True
                data = self._read_head(data, receiver)
                framing = self._framing
                if framing is None:
                    return
            end = framing.feed(data)
        except BadResponse as bad:
            self._fail(f"not a valid HTTP response: {bad}")
            return
        if end is None:
            if data:
                receiver.on_body(data, framing)
        else:
            self._read_end(data, end, framing, receiver)

    @override
    def eof_received(self) -> bool | None:
        """The replica sends no more."""
        return None

    @override
    def pause_writing(self) -> None:
        """The replica does not keep up."""
        self._write_paused = True

    @override
    def resume_writing(self) -> None:
        """The replica keeps up again."""
        self._write_paused = False
        if self._unsent:
            asyncio.get_running_loop().call_soon(self._send_part)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._unsent.clear()
        self._pool.closed(self)
        receiver = self._receiver
        self._receiver = None
        if receiver is None:
            return
        if exc is None and self._framing is not None and self._framing.until_close:
            receiver.on_end()
        else:
            receiver.on_lost(str(exc or "the replica closed the connection"), began=self._began)

    def _send_part(self) -> None:
        # One in each round of the loop: to send 5 MB at once takes milliseconds.
        if self._unsent and not self._write_paused:
            self._transport.write(self._unsent.popleft())
            if self._unsent and not self._write_paused:
                asyncio.get_running_loop().call_soon(self._send_part)

    def _read_head(self, data: bytes, receiver: Receiver) -> bytes:
        data = self._head + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > _MAX_HEAD:
                    raise BadResponse("headers without an end")
                self._head = data
                return b""
            head = parse_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                raise BadResponse("it switches protocols unasked")
        self._head = b""
        self._framing = framing_of(head, to_head=self._to_head)
        self._keep = head.keeps_connection and not self._framing.until_close
        receiver.on_head(head, self._framing, more=bool(data))
        return data

    def _read_end(self, data: bytes, end: int, framing: Framing, receiver: Receiver) -> None:
        if end:
            receiver.on_body(data if end == len(data) else data[:end], framing)
        if self._receiver is not receiver:
            return  # aborted in the call
        self._receiver = None
        # A replica that answers before it has read all may not read the rest.
        if self._keep and end == len(data) and not self._unsent:
            self.pause(False)
            self._pool.release(self)
        else:
            self._unsent.clear()
            self._transport.abort()
        receiver.on_end()

    def _fail(self, reason: str) -> None:
        receiver = self._receiver
        self._receiver = None
        self._unsent.clear()
        self.malformed = True
        self._transport.abort()
        if receiver:
            receiver.on_lost(reason, began=True)


class Pool:
    """The connections to one replica. Idle ones are kept, the last used first."""

    def __init__(
        self, host: str, port: int, *, max_idle: int = 8, connect_seconds: float = 3
    ) -> None:
        self.max_idle = max_idle
        """A llama-server has few more HTTP threads than slots, and an idle connection holds one."""
        self._host = host
        self._port = port
        self._connect_seconds = connect_seconds
        self._idle: list[UpstreamConnection] = []
        self._closed = False

    def acquire(self) -> UpstreamConnection | None:
        """An idle connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.reused = True
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A fresh connection. Raises OSError (TimeoutError too)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_seconds):
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), self._host, self._port
            )
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        if self._closed or len(self._idle) >= self.max_idle:
            connection.abort()
        else:
            self._idle.append(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """A connection is no more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def drop_idle(self) -> None:
        """Close idle connections: the replica seems not to be what it was."""
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Close idle connections, and busy ones as soon as their response has ended."""
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
    """A response's head, with the empty line that ends it. Raises BadResponse.

    The heads of all streams of a replica are the same bytes: what they say is kept.
    """
    return _parse_kept(data) if len(data) <= _KEPT else _parse(data)


def _parse(data: bytes) -> ResponseHead:
    events = _HeadParser()
    parser = httptools.HttpResponseParser(events)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise BadResponse("it switches protocols unasked") from None
    except httptools.HttpParserError as error:
        raise BadResponse(str(error)) from None
    if not _STATUS_LINE.match(data):
        raise BadResponse("no status line of HTTP/1.1 or HTTP/1.0")
    if len(value_of(events.headers, b"content-length") or b"") > _MAX_DIGITS:
        raise BadResponse("a Content-Length that is too long")
    version = parser.get_http_version()
    return ResponseHead(parser.get_status_code(), events.reason, events.headers, version == "1.1")


_parse_kept = lru_cache(maxsize=64)(_parse)
