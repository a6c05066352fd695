"""Requests, response heads and answers of our own, and how they are written as bytes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus

JSON = b"application/json; charset=utf-8"

Header = tuple[bytes, bytes]
Headers = list[Header]
"""Name and value pairs in the order in which they came, names spelled as they came."""

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
# The body follows whole, with a length of our own.
_NOT_IN_REQUESTS = _HOP_BY_HOP | {b"content-length", b"expect"}


@dataclass(slots=True)
class Request:
    """One complete request."""

    method: bytes
    target: bytes
    headers: Headers
    http11: bool
    keep_alive: bool
    parts: Sequence[bytes] = ()
    """The body without its chunk framing, in the pieces in which it came if it is large: to put
    5 MB together takes milliseconds, in which no token would move."""
    size: int = 0
    """Bytes of the body."""

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def beginning(self, size: int) -> bytes:
        """The first `size` bytes of the body, or a few more."""
        if len(self.parts) <= 1:
            return self.body
        taken = 0
        found = []
        for part in self.parts:
            if taken >= size:
                break
            found.append(part)
            taken += len(part)
        return b"".join(found)

    @property
    def path(self) -> bytes:
        """The target without its query, as it was sent: nothing is decoded."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (in lower case), or None."""
        return value_of(self.headers, name)


@dataclass(frozen=True)
class ResponseHead:
    """Status line and headers of a response; those that came as the same bytes share one."""

    status: int
    reason: bytes
    headers: Headers
    http11: bool

    @cached_property
    def codings(self) -> list[bytes]:
        """What each Transfer-Encoding header says, in lower case."""
        name = b"transfer-encoding"
        return [value.lower() for key, value in self.headers if key.lower() == name]

    @cached_property
    def length(self) -> int | None:
        """Content-Length."""
        value = value_of(self.headers, b"content-length")
        return None if value is None else int(value)

    @cached_property
    def keeps_connection(self) -> bool:
        """The connection may be used again after the response."""
        tokens = tokens_of(self.headers, b"connection")
        return b"close" not in tokens if self.http11 else b"keep-alive" in tokens

    @cached_property
    def end_to_end(self) -> list[Header]:
        """The headers that concern not only this connection: names in lower case, and lines."""
        dropped = _not_end_to_end(self.headers, _HOP_BY_HOP)
        return [
            (lower, b"%s: %s\r\n" % header)
            for header in self.headers
            if (lower := header[0].lower()) not in dropped
        ]


@dataclass(slots=True)
class Response:
    """A complete answer of our own."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: Headers = field(default_factory=list)


def json_response(status: int, tree: object) -> Response:
    """`tree` as a JSON answer."""
    return Response(status, json.dumps(tree, separators=(",", ":")).encode())


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """The first value of the header `name` (in lower case), or None."""
    for key, value in headers:
        if len(key) == len(name) and key.lower() == name:
            return value
    return None


def tokens_of(headers: Headers, name: bytes) -> set[bytes]:
    """The comma-separated tokens of all headers called `name`, in lower case."""
    tokens: set[bytes] = set()
    for key, value in headers:
        # Most headers differ in length, which is quicker to see.
        if len(key) == len(name) and key.lower() == name:
            tokens.update(token.strip().lower() for token in value.split(b","))
    return tokens


def encode_request_head(
    request: Request, dropped: Iterable[bytes] = (), added: Iterable[Header] = ()
) -> bytes:
    """The head with which `request` is passed on; its body follows as it is.

    `dropped` are headers (in lower case) that are not, `added` are further ones.

    Written anew rather than copied, with one Content-Length and nothing that concerns only the
    client's connection: what the replica reads is what was parsed here, so that no request can
    be smuggled inside another.
    """
    lines = [b"%s %s HTTP/1.1\r\n" % (request.method, request.target)]
    not_sent = _not_end_to_end(request.headers, _NOT_IN_REQUESTS.union(dropped))
    lines += [b"%s: %s\r\n" % each for each in request.headers if each[0].lower() not in not_sent]
    lines += [b"%s: %s\r\n" % header for header in added]
    lines.append(b"Content-Length: %d\r\n\r\n" % request.size)
    return b"".join(lines)


def encode_response_head(
    head: ResponseHead, *, chunked: bool, connection: bytes | None, added: Iterable[Header] = ()
) -> bytes:
    """The head with which a response is passed on.

    `connection` is our own Connection header, `added` are headers of our own, which take the
    place of the response's.
    """
    lines = [b"HTTP/1.1 %d %s\r\n" % (head.status, head.reason)]
    ours = list(added)
    names = {name.lower() for name, _ in ours}
    lines += [line for name, line in head.end_to_end if name not in names]
    lines += [b"%s: %s\r\n" % header for header in ours]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if connection:
        lines.append(b"Connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def encode_response(
    answer: Response, *, body: bool = True, connection: bytes | None = None
) -> bytes:
    """An answer of our own with its Content-Length; without `body` it answers a HEAD."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (answer.status, reason_of(answer.status))]
    if answer.status not in {204, 304}:
        lines.append(b"Content-Type: %s\r\n" % answer.content_type)
        lines.append(b"Content-Length: %d\r\n" % len(answer.body))
    lines += [b"%s: %s\r\n" % header for header in answer.headers]
    if connection:
        lines.append(b"Connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    if body and answer.status not in {204, 304}:
        lines.append(answer.body)
    return b"".join(lines)


def reason_of(status: int) -> bytes:
    """The phrase that belongs to a status code."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _not_end_to_end(headers: Headers, always: frozenset[bytes]) -> frozenset[bytes]:
    named = tokens_of(headers, b"connection")
    if not named:
        return always
    # A Connection header must neither unframe the message nor take the host from a request.
    return always | (named - {b"content-length", b"host"})
