import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Request
from slotkeeper.wire.parse import RequestParser, Stage

SMALL = Limits(max_head=400, max_body=20)

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"

STREAMS = {
    "a body of known length": HEAD + b"Content-Length: 2\r\n\r\nhi",
    "a chunked body with an extension and a trailer": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n",
    "two requests in one go": HEAD
    + b"Content-Length: 2\r\n\r\nhi"
    + b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a good request and garbage": HEAD + b"Content-Length: 0\r\n\r\n" + b"\x00garbage",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an offer to switch protocols": HEAD
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    + b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n",
    "too large a body": HEAD + b"Content-Length: 21\r\n\r\n" + b"x" * 21,
    "too many chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 5,
    "a header too large": HEAD + b"X: " + b"x" * 500 + b"\r\n\r\n",
    "bare line feeds": b"POST /x HTTP/1.1\nHost: a\n\n",
}


def parse(*pieces: bytes) -> list[object]:
    parser = RequestParser(SMALL)
    items: list[object] = []
    for piece in pieces:
        for item in parser.feed(piece):
            if isinstance(item, HttpError):
                return [*items, item.status, item.code]
            items.append(item)
    return items


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_requests_are_the_same_wherever_the_bytes_are_split(stream: bytes) -> None:
    whole = parse(stream)

    assert whole
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == whole
    for at in range(1, len(stream)):
        assert parse(stream[:at], stream[at:]) == whole


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        pytest.param(400, HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n", id="repeated"),
        pytest.param(400, HEAD + b"Content-Length: 2, 2\r\n\r\n", id="listed lengths"),
        pytest.param(400, HEAD + b"Content-Length: +2\r\n\r\n", id="signed length"),
        pytest.param(400, HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", id="huge"),
        pytest.param(400, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="coded"),
        pytest.param(400, HEAD + b"Transfer-Encoding: identity\r\n\r\n", id="identity"),
        pytest.param(400, HEAD + b"X: a\r\n b\r\n\r\n", id="folded header"),
        pytest.param(400, HEAD + b"X : a\r\n\r\n", id="space before colon"),
        pytest.param(400, HEAD + b"X: a\x00b\r\n\r\n", id="NUL in header"),
        pytest.param(400, HEAD + b"X: a\nY: b\r\n\r\n", id="bare LF in header"),
        pytest.param(400, HEAD + b"Host: b\r\n\r\n", id="two hosts"),
        pytest.param(400, b"GET /x HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(400, b"GET /x HTTP/0.9\r\nHost: a\r\n\r\n", id="HTTP/0.9"),
        pytest.param(400, b"GET /x\r\nHost: a\r\n\r\n", id="no version"),
        pytest.param(400, b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", id="HTTP/2 by name"),
        pytest.param(400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param(400, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", id="CONNECT"),
        pytest.param(400, b"NONSENSE /x HTTP/1.1\r\nHost: a\r\n\r\n", id="unknown method"),
        pytest.param(400, b"\x16\x03\x01\x02\x00\x01", id="TLS"),
        pytest.param(417, HEAD + b"Expect: tea\r\nContent-Length: 2\r\n\r\n", id="expects tea"),
        pytest.param(413, HEAD + b"Content-Length: 21\r\n\r\n", id="Content-Length too large"),
        pytest.param(431, HEAD + b"X: y\r\n" * 200 + b"\r\n", id="too many headers"),
        pytest.param(431, b"GET /" + b"x" * 500, id="endless target"),
        pytest.param(
            431,
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: y\r\n" * 100,
            id="endless trailers",
        ),
    ],
)
def test_malformed_or_too_large_requests_are_rejected(status: int, request_bytes: bytes) -> None:
    assert parse(request_bytes)[0] == status


def test_a_chunked_body_is_read_without_its_framing_and_trailers() -> None:
    (request,) = parse(STREAMS["a chunked body with an extension and a trailer"])

    assert isinstance(request, Request)
    assert request.body == b"hi!"
    assert request.header(b"trailer") is None


def test_a_large_body_stays_in_parts_and_its_small_pieces_are_joined() -> None:
    parser = RequestParser(Limits())
    pieces = [b"a" * 200_000, *[b"b"] * 100_000, b"c" * 70_000, b"d"]
    parser.feed(HEAD + b"Content-Length: %d\r\n\r\n" % sum(map(len, pieces)))
    (request,) = [request for piece in pieces for request in parser.feed(piece)]

    assert isinstance(request, Request)
    assert [len(part) for part in request.parts] == [200_000, 65_536, 100_000 + 4_464, 1]
    assert request.body == b"".join(pieces)
    assert request.size == len(request.body)
    assert request.beginning(200_000) == pieces[0]
    assert request.beginning(200_001) == pieces[0] + b"b" * 65_536


def test_an_absolute_target_is_reduced_to_its_path() -> None:
    (request,) = parse(b"GET http://a.example/v1/models?x=1 HTTP/1.1\r\nHost: A.example\r\n\r\n")

    assert isinstance(request, Request)
    assert (request.target, request.path) == (b"/v1/models?x=1", b"/v1/models")


@pytest.mark.parametrize(
    ("keep_alive", "lines"),
    [
        (True, b"HTTP/1.1\r\nHost: a\r\n"),
        (False, b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"),
        (False, b"HTTP/1.0\r\n"),
        (True, b"HTTP/1.0\r\nConnection: keep-alive\r\n"),
    ],
)
def test_keep_alive_follows_from_the_version_and_the_connection_header(
    keep_alive: bool, lines: bytes
) -> None:
    (request,) = parse(b"GET / " + lines + b"\r\n")

    assert isinstance(request, Request)
    assert request.keep_alive is keep_alive


def test_the_stage_is_how_much_of_a_request_has_arrived() -> None:
    parser = RequestParser(SMALL)
    stages = [parser.stage]
    for piece in (b"POST /x HTTP/1.1\r\n", b"Host: a\r\nContent-Length: 2\r\n\r\nh", b"i"):
        parser.feed(piece)
        stages.append(parser.stage)

    assert stages == [Stage.IDLE, Stage.HEAD, Stage.BODY, Stage.IDLE]


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_no_input_makes_the_parser_fail(pieces: list[bytes]) -> None:
    parse(*pieces)
    parse(HEAD, *pieces)


LIMIT_CASES = {
    "a header of 8192 bytes": (HEAD + b"X: " + b"x" * 8187 + b"\r\n\r\n", None),
    "a header of 8193 bytes": (HEAD + b"X: " + b"x" * 8188 + b"\r\n\r\n", 431),
    "a request line of 8192 bytes": (
        b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * (8192 - 16)),
        None,
    ),
    "a request line of 8193 bytes": (
        b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * (8193 - 16)),
        414,
    ),
    "96 headers": (HEAD + b"X: x\r\n" * 95 + b"\r\n", None),
    "97 headers": (HEAD + b"X: x\r\n" * 96 + b"\r\n", 431),
    "64 requests at once": ((HEAD + b"\r\n") * 64, None),
    "65 requests at once": ((HEAD + b"\r\n") * 65, 400),
}


@pytest.mark.parametrize(("sent", "status"), LIMIT_CASES.values(), ids=LIMIT_CASES)
def test_a_head_that_is_accepted_is_accepted_by_llama_server(
    sent: bytes, status: int | None
) -> None:
    """llama-server b11669 accepts lines of 8192 bytes, and 100 headers."""
    last = RequestParser(Limits()).feed(sent)[-1]

    assert (last.status if isinstance(last, HttpError) else None) == status


def test_a_body_in_tiny_chunks_occupies_about_its_size() -> None:
    parser = RequestParser(Limits())
    parser.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\nxx\r\n" * 200_000)
    assert parser.occupied < 500_000
    (request,) = parser.feed(b"0\r\n\r\n")

    assert isinstance(request, Request)
    assert request.size == 400_000
    assert len(request.parts) <= 7
    assert request.body == b"x" * 400_000


def test_many_short_headers_count_with_their_objects() -> None:
    parser = RequestParser(Limits())
    parser.feed(HEAD + b"a: b\r\n" * 90)

    assert parser.occupied > 90 * 160
