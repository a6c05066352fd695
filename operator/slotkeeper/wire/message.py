"""Requests, response heads, complete responses, and their encoding as bytes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus

from slotkeeper.wire.body_stream import BodyStream

JSON = b"application/json; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"

Header = tuple[bytes, bytes]
Headers = list[Header]
"""Name and value pairs in the order of arrival, names spelled as received."""

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
_CONNECTION_OPTIONS = frozenset((b"keep-alive", b"close"))


@dataclass(slots=True)
class Request:
    """One complete request."""

    method: bytes
    target: bytes
    headers: Headers
    http11: bool
    keep_alive: bool
    parts: Sequence[bytes] = ()
    """The body without chunk framing. A large one stays in the pieces in which it arrived: joining
    5 MB takes milliseconds, in which no stream would make progress."""
    size: int = 0
    """Bytes of the body."""
    overhead: int = 0
    """Bytes of memory that the head occupies."""
    stream: BodyStream | None = None
    """The body, if the request is handled while it arrives; it has no `parts` then."""

    @property
    def body(self) -> bytes:
        """The whole body, joined."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def beginning(self, size: int) -> bytes:
        """Return the first `size` bytes of the body, rounded up to whole parts."""
        if len(self.parts) <= 1:
            return self.body
        total = 0
        parts = []
        for part in self.parts:
            if total >= size:
                break
            parts.append(part)
            total += len(part)
        return b"".join(parts)

    def ending(self, size: int) -> bytes:
        """Return the last `size` bytes of the body."""
        total = 0
        parts: list[bytes] = []
        for part in reversed(self.parts):
            if total >= size:
                break
            parts.append(part)
            total += len(part)
        return b"".join(reversed(parts))[-size:]

    @property
    def path(self) -> bytes:
        """The target without its query, as sent: nothing is decoded."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of the header `name` (in lower case), or None."""
        return value_of(self.headers, name)


@dataclass(frozen=True)
class ResponseHead:
    """Status line and headers of a response. Identical heads share one cached object."""

    status: int
    reason: bytes
    headers: Headers
    http11: bool

    @cached_property
    def codings(self) -> list[bytes]:
        """The value of each Transfer-Encoding header, in lower case."""
        name = b"transfer-encoding"
        return [value.lower() for key, value in self.headers if key.lower() == name]

    @cached_property
    def length(self) -> int | None:
        """The value of Content-Length; None without one."""
        value = value_of(self.headers, b"content-length")
        return None if value is None else int(value)

    @cached_property
    def keeps_connection(self) -> bool:
        """Whether the connection stays open after the response."""
        tokens = tokens_of(self.headers, b"connection")
        return b"close" not in tokens if self.http11 else b"keep-alive" in tokens

    @cached_property
    def end_to_end(self) -> list[Header]:
        """The end-to-end headers, as pairs of the name in lower case and the encoded line."""
        dropped = _not_end_to_end(self.headers, _HOP_BY_HOP)
        return [
            (lower, b"%s: %s\r\n" % header)
            for header in self.headers
            if (lower := header[0].lower()) not in dropped
        ]


@dataclass(slots=True)
class Response:
    """A complete response."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: Headers = field(default_factory=list)


def json_response(status: int, tree: object) -> Response:
    """Return a response whose body is `tree` as JSON."""
    return Response(status, json.dumps(tree, separators=(",", ":")).encode())


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of the header `name` (in lower case), or None."""
    for key, value in headers:
        if len(key) == len(name) and key.lower() == name:
            return value
    return None


def tokens_of(headers: Headers, name: bytes) -> set[bytes]:
    """Return the comma-separated tokens of all headers `name`, in lower case."""
    tokens: set[bytes] = set()
    for key, value in headers:
        # Most headers differ in length, which is cheaper to compare.
        if len(key) == len(name) and key.lower() == name:
            tokens.update(token.strip().lower() for token in value.split(b","))
    return tokens


def encode_request_head(
    request: Request, forwarded: frozenset[bytes], added: Iterable[Header] = ()
) -> bytes:
    """Encode the head with which `request` is forwarded; its body follows unchanged.

    `forwarded` are the names (in lower case) of the headers that are kept, besides Host; `added`
    are further headers.

    The head is encoded from the parsed request, with one Content-Length and without hop-by-hop
    headers: the replica reads exactly what was parsed here, which prevents request smuggling.
    """
    lines = [b"%s %s HTTP/1.1\r\n" % (request.method, request.target)]
    named = tokens_of(request.headers, b"connection")
    if not named <= _CONNECTION_OPTIONS:
        forwarded -= named
    lines += [
        b"%s: %s\r\n" % header
        for header in request.headers
        if (name := header[0].lower()) in forwarded or name == b"host"
    ]
    lines += [b"%s: %s\r\n" % header for header in added]
    size = request.stream.size if request.stream else request.size
    lines.append(b"Content-Length: %d\r\n\r\n" % size)
    return b"".join(lines)


def encode_response_head(
    head: ResponseHead, *, chunked: bool, connection: bytes | None, added: Iterable[Header] = ()
) -> bytes:
    """Encode the head with which a response is forwarded.

    `connection` is the value of our own Connection header (None: no such header). Headers in
    `added` replace the response's headers of the same name.
    """
    lines = [b"HTTP/1.1 %d %s\r\n" % (head.status, head.reason)]
    headers = list(added)
    names = {name.lower() for name, _ in headers}
    lines += [line for name, line in head.end_to_end if name not in names]
    lines += [b"%s: %s\r\n" % header for header in headers]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if connection:
        lines.append(b"Connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def encode_response(
    response: Response, *, body: bool = True, connection: bytes | None = None
) -> bytes:
    """Encode a complete response with its Content-Length; `body` is False for a HEAD request."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (response.status, reason_of(response.status))]
    if response.status not in {204, 304}:
        lines.append(b"Content-Type: %s\r\n" % response.content_type)
        lines.append(b"Content-Length: %d\r\n" % len(response.body))
    lines += [b"%s: %s\r\n" % header for header in response.headers]
    if connection:
        lines.append(b"Connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    if body and response.status not in {204, 304}:
        lines.append(response.body)
    return b"".join(lines)


def reason_of(status: int) -> bytes:
    """Return the reason phrase of a status code."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _not_end_to_end(headers: Headers, always: frozenset[bytes]) -> frozenset[bytes]:
    named = tokens_of(headers, b"connection")
    if not named:
        return always
    # A Connection header must not remove the message's framing or a request's Host.
    return always | (named - {b"content-length", b"host"})
