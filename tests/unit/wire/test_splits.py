"""Where a byte stream is split has no effect on what is parsed from it."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import combinations

import pytest
from typing_extensions import override

from conformance import CHUNKS, SERVED, counted
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Request, ResponseHead
from slotkeeper.wire.parse import RequestParser

SHORT = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
RESPONSES = {
    "a length": OK + b"Content-Length: 2\r\n\r\nhi",
    "no body": OK + b"Content-Length: 0\r\n\r\n",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "an extension and trailers": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n03\r\n\r\n\n\r\n0\r\nX: y\r\nZ: \r\n\r\n",
    "until the connection closes": OK + b"X: y\r\n\r\nhi",
    "Connection: close": OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
    "100 and 102 before it": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nX: y\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\n\r\nhi",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "bytes after it": OK + b"Content-Length: 2\r\n\r\nhi" + OK,
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "chunks twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunks in two headers": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk too long": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n",
    "a length of thousands of digits": OK + b"Content-Length: " + b"0" * 500 + b"\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "a bell in the reason": b"HTTP/1.1 200 O\x07K\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
}
BAD = list(RESPONSES)[9:]


def halves(data: bytes) -> Iterator[Iterable[bytes]]:
    """All ways to send `data` in two pieces, and byte by byte."""
    yield (data[at : at + 1] for at in range(len(data)))
    for at in range(1, len(data)):
        yield data[:at], data[at:]


def requests(pieces: Iterable[bytes]) -> list[object]:
    parser = RequestParser(Limits())
    return [item for piece in pieces for item in parser.feed(piece)]


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
def test_a_request_is_the_same_however_it_is_split_in_two(data: bytes) -> None:
    data += b"" if b"close" in data or b"HTTP/1.0" in data else counted(b": 2")
    whole = requests([data])

    assert all(isinstance(item, Request) for item in whole)
    for pieces in halves(data):
        assert requests(pieces) == whole


def test_a_chunked_request_is_the_same_however_it_is_split_in_three() -> None:
    whole = requests([SHORT + CHUNKS + b"0\r\n\r\n"])

    assert len(whole) == 2
    for one, two in combinations(range(1, len(SHORT)), 2):
        assert requests([SHORT[:one], SHORT[one:two], SHORT[two:] + CHUNKS, b"0\r\n\r\n"]) == whole


class FakeTransport(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    @override
    def write(self, data: object) -> None: ...

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def abort(self) -> None:
        self.closing = True


class Recorder:
    """A receiver that records its callbacks."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.raw = b""
        self.payload = b""
        self.end = ""

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        del framing, more
        assert self.head is None
        self.head = head

    def on_body(self, data: bytes, framing: Framing) -> None:
        self.raw += data
        self.payload += framing.payload()

    def on_end(self) -> None:
        assert not self.end
        self.end = "whole"

    def on_lost(self, reason: str, *, began: bool) -> None:
        assert began
        assert not self.end
        self.end = reason


def response(pieces: Iterable[bytes]) -> tuple[object, ...]:
    """How a response is read, and whether its connection is reused."""
    transport, pool, recorder = FakeTransport(), Pool("a", 1), Recorder()
    connection = UpstreamConnection(pool)
    connection.connection_made(transport)
    connection.send(b"", (), recorder)
    for piece in pieces:
        if not transport.closing:
            connection.data_received(piece)
    reused = pool.acquire() is connection
    connection.connection_lost(None)
    return recorder.head, recorder.raw, recorder.payload, recorder.end, reused


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_the_same_however_it_is_split(name: str) -> None:
    data = RESPONSES[name]
    whole = response([data])

    assert (whole[3] == "whole") is (name not in BAD)
    for pieces in halves(data):
        split = response(pieces)
        if name == "bytes after it":
            # Bytes that arrive later close the pooled connection.
            assert split[:-1] == whole[:-1]
        elif name in BAD:
            assert split[3] == whole[3]
        else:
            assert split == whole


@pytest.mark.parametrize("name", ["chunks", "an extension and trailers"])
def test_a_chunked_response_is_the_same_however_it_is_split_in_three(name: str) -> None:
    data = RESPONSES[name]
    whole = response([data])

    assert whole[2] == (b"hi" if name == "chunks" else b"hi\r\n\n")
    for one, two in combinations(range(1, len(data)), 2):
        assert response([data[:one], data[one:two], data[two:]]) == whole
