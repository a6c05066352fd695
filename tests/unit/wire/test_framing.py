from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.wire.framing import BadResponse, Chunked, ContentLength, UntilClose, framing_of
from slotkeeper.wire.message import Headers, ResponseHead

contents = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def chunked(pieces: list[bytes], trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


def head(status: int, *headers: tuple[bytes, bytes]) -> ResponseHead:
    listed: Headers = list(headers)
    return ResponseHead(status, b"OK", listed, http11=True)


@given(contents, st.sampled_from([b"", b"T: x\r\n", b"T: x\r\nU: y\r\n"]), st.data())
def test_the_end_of_a_chunked_body_is_found_however_it_is_split(
    pieces: list[bytes], trailers: bytes, data: st.DataObject
) -> None:
    body = chunked(pieces, trailers)
    stream = body + b"HTTP/1.1 200 the next one"
    framing, at, payload = Chunked(), 0, b""
    while True:
        step = data.draw(st.integers(1, len(stream) - at))
        end = framing.feed(stream[at : at + step])
        payload += framing.payload()
        if end is not None:
            break
        at += step

    assert at + end == len(body)
    assert payload == b"".join(pieces)


@given(st.lists(st.sampled_from([b"a", b"1\r\na\r\n", b"x" * 2100]), max_size=6), st.data())
def test_a_piece_that_looks_like_a_chunk_is_a_chunk_only_between_chunks(
    pieces: list[bytes], data: st.DataObject
) -> None:
    # Cut where chunks and their contents begin and end. Some pieces are whole chunks, and some
    # only look like one.
    ends, at = {0}, 0
    for piece in pieces:
        begin = at + len(b"%x\r\n" % len(piece))
        at = begin + len(piece) + 2
        ends |= {begin, at - 2, at}
    body = chunked(pieces)
    cuts = sorted(data.draw(st.sets(st.sampled_from(sorted(ends)))) | {0, len(body)})
    framing, payload = Chunked(), b""
    for begin, end in pairwise(cuts):
        body_end = framing.feed(body[begin:end])
        payload += framing.payload()
        assert body_end == (end - begin if end == len(body) else None)

    assert payload == b"".join(pieces)


@pytest.mark.parametrize(
    "body",
    [b"2\nhi\r\n", b"x\r\n", b"\r\n", b"-1\r\n", b"0x1\r\n", b"2\r\nhi!\r\n", b"1" * 20_000],
)
def test_chunks_that_two_parsers_may_read_differently_are_rejected(body: bytes) -> None:
    with pytest.raises(BadResponse):
        Chunked().feed(body)


@given(st.integers(0, 50), st.data())
def test_a_body_with_a_content_length_ends_after_it(length: int, data: st.DataObject) -> None:
    framing, received = ContentLength(length), 0
    while True:
        piece = b"x" * data.draw(st.integers(0 if length == 0 else 1, 20))
        end = framing.feed(piece)
        if end is not None:
            break
        received += len(piece)

    assert received + end == length


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (head(200, (b"Transfer-Encoding", b"chunked")), Chunked),
        (head(200, (b"Content-Length", b"3")), ContentLength),
        (head(204), ContentLength),
        (head(304, (b"Content-Length", b"3")), ContentLength),
        (head(200), UntilClose),
    ],
)
def test_the_head_specifies_the_framing_of_the_body(response: ResponseHead, kind: type) -> None:
    assert type(framing_of(response)) is kind


def test_a_response_to_a_head_request_has_no_body() -> None:
    framing = framing_of(head(200, (b"Content-Length", b"3")), to_head=True)

    assert framing.feed(b"") == 0


def test_a_transfer_coding_other_than_chunked_is_rejected() -> None:
    with pytest.raises(BadResponse):
        framing_of(head(200, (b"Transfer-Encoding", b"gzip, chunked")))
