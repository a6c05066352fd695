"""Damaged messages, compared with h11: what both parsers accept, they read the same way."""

import random
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import pytest
from hypothesis import settings

from conformance import REJECTED, SERVED
from mutation import cuts, mutants
from slotkeeper.edge.access import FORWARDED
from slotkeeper.wire.client import parse_head
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.framing import BadResponse, framing_of
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Headers, Request, encode_request_head, encode_response_head
from slotkeeper.wire.parse import RequestParser

LIMITS = Limits(max_head=2000, max_body=1000)
ROUNDS = 60 * settings().max_examples
"""6,000 damaged messages; with the profile `long`, 300,000."""

REQUESTS = [
    *SERVED.values(),
    *(data for _, data in REJECTED.values() if len(data) < 1000),
    b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n" * 2,
    b"HEAD /health HTTP/1.1\r\nhost: a\r\nuser-agent: x\r\n\r\n",
]
OK = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
RESPONSES = [
    OK + b"Content-Length: 2\r\n\r\nhi",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nh\r\n01\r\ni\r\n0\r\nX: y\r\n\r\n",
    OK + b"Connection: close\r\n\r\nhi",
    b"HTTP/1.0 200 OK\r\n\r\nhi",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 500 Oh no\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@dataclass(frozen=True)
class Message:
    """A message as a parser read it. `rest` is the number of bytes after it."""

    start: tuple[object, ...]
    headers: Headers
    body: bytes
    rest: int | None = None


def parse_ours(data: bytes) -> tuple[list[Request], HttpError | None]:
    """The requests in `data`, fed in one piece, and the error that ends them."""
    items = RequestParser(LIMITS).feed(data)
    requests = [item for item in items if isinstance(item, Request)]
    assert all(isinstance(item, Request) for item in items[:-1])
    return requests, items[-1] if items and isinstance(items[-1], HttpError) else None


def parse_h11(data: bytes, role: type[h11.SERVER | h11.CLIENT] = h11.SERVER) -> Message | None:
    """The first message in `data` as h11 reads it; None if incomplete or rejected."""
    parser = h11.Connection(role)
    if role is h11.CLIENT:
        parser.send(h11.Request(method="POST", target="/", headers=[("Host", "a")]))
        parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    if role is h11.CLIENT:
        parser.receive_data(b"")
    head: h11.Request | h11.Response | None = None
    body = b""
    try:
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request | h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    assert head
    start: tuple[object, ...] = (
        (bytes(head.method), bytes(head.target))
        if isinstance(head, h11.Request)
        else (head.status_code,)
    )
    rest = len(parser.trailing_data[0])
    return Message(start, [(bytes(n), bytes(v)) for n, v in head.headers], body, rest)


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
def test_both_parsers_read_unusual_requests_the_same_way(data: bytes) -> None:
    (request,), error = parse_ours(data)

    assert error is None
    _agree(data, [request])
    _is_forwarded_as_one_request(request)


def test_requests_that_both_parsers_accept_are_read_the_same_way() -> None:
    both = 0
    for data in mutants(REQUESTS, ROUNDS, seed=1):
        requests, _ = parse_ours(data)
        both += _agree(data, requests)
        for request in requests:
            _is_forwarded_as_one_request(request)

    # The test is void if the damage leaves too little to compare.
    assert both > ROUNDS / 20


def test_damaged_requests_are_read_the_same_way_however_they_are_split() -> None:
    chance = random.Random(2)
    for data in mutants(REQUESTS, ROUNDS, seed=2):
        parser = RequestParser(LIMITS)
        requests: list[Request] = []
        rejected = False
        for piece in cuts(data, chance):
            items = parser.feed(piece)
            requests += [item for item in items if isinstance(item, Request)]
            rejected = any(isinstance(item, HttpError) for item in items)
            assert parser.partial <= LIMITS.max_body
            if rejected:
                break
        whole, error = parse_ours(data)

        assert requests == whole, data
        assert rejected == (error is not None), data


def test_no_damaged_request_exceeds_the_memory_limits() -> None:
    for data in mutants(REQUESTS, ROUNDS // 60, seed=3):
        for endless in (b"x", b"0", b"X: y\r\n", b"\r\n", b"1\r\nx\r\n", b"1;a\r\nx\r\n"):
            parser = RequestParser(LIMITS)
            for piece in (data, *[endless * 100] * 100):
                items = parser.feed(piece)
                buffered = parser.partial + sum(
                    len(value) + len(name) for name, value in parser._headers
                )
                assert buffered <= LIMITS.max_body + LIMITS.max_head
                assert parser._bytes_since_event <= max(LIMITS.max_head + 1000, len(piece))
                if items and isinstance(items[-1], HttpError):
                    break


def test_responses_that_both_parsers_accept_are_read_the_same_way() -> None:
    both = 0
    for data in mutants(RESPONSES, ROUNDS, seed=4):
        mine, other = _response(data), parse_h11(data, h11.CLIENT)
        if mine is None or other is None:
            continue
        both += 1
        assert mine.start == other.start, data
        assert mine.body == other.body, data
        assert mine.rest == other.rest, data

    assert both > ROUNDS / 20


def _agree(data: bytes, requests: list[Request]) -> bool:
    """Whether both parsers accept a first request, which must then be the same one."""
    other = parse_h11(data)
    if not requests or other is None:
        return False
    first = requests[0]
    assert (first.method, first.body) == (other.start[0], other.body), data
    target = other.start[1]
    assert isinstance(target, bytes)
    if target.startswith((b"/", b"*")):
        assert first.target == target, data
    else:
        parts = urlsplit(target)
        assert urlsplit(b"http://a" + first.target)[2:] == (parts.path or b"/", *parts[3:]), data
    assert _comparable(first.headers, other.headers) == _comparable(other.headers, other.headers), (
        data
    )
    # The request ends at the same byte.
    assert other.rest is not None
    end = len(data) - other.rest
    assert parse_ours(data[:end])[0] == [first], data
    assert parse_ours(data[: end - 1])[0] == [], data
    return True


def _comparable(headers: Headers, received: Headers) -> Headers:
    """Headers without those that we drop, and without a Host that was not `received`."""
    has_host = any(name.lower() == b"host" for name, _ in received)
    return [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in ((name.lower(), value) for name, value in headers)
        if name != b"upgrade" and (has_host or name != b"host")
    ]


def _is_forwarded_as_one_request(request: Request) -> None:
    """A replica reads exactly this request, and no further byte."""
    sent = parse_h11(encode_request_head(request, FORWARDED) + request.body)
    assert sent, request
    assert sent.start == (request.method, request.target)
    assert (sent.body, sent.rest) == (request.body, 0)


def _response(data: bytes) -> Message | None:
    while True:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        try:
            head = parse_head(data[:end])
            data = data[end:]
            if head.status == 101:
                return None
            if head.status < 200:
                continue
            framing = framing_of(head)
            last = framing.feed(data)
        except BadResponse:
            return None
        passed = encode_response_head(head, chunked=False, connection=None)
        assert parse_head(passed).status == head.status
        if last is None and not framing.until_close:
            return None
        rest = 0 if last is None else len(data) - last
        return Message((head.status,), head.headers, framing.payload(), rest)
