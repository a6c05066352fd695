import pytest
from hypothesis import given
from hypothesis import strategies as st

from running_batches import form
from slotkeeper.batches.multipart import (
    MAX_PART_HEAD,
    MAX_PARTS,
    BadForm,
    FormParser,
    Part,
    PartEnd,
    boundary_of,
)

HEAD = b'--form\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def parts(body: bytes, sizes: int = 1_000_000) -> list[tuple[Part, bytes]]:
    """Parse a form that arrives in pieces of this size."""
    parser = FormParser(b"form")
    found: list[tuple[Part, bytes]] = []
    open_part = False
    for start in range(0, len(body), sizes):
        for event in parser.feed(body[start : start + sizes]):
            if isinstance(event, bytes):
                part, data = found[-1]
                found[-1] = part, data + event
            elif isinstance(event, PartEnd):
                open_part = False
            else:
                assert not open_part
                open_part = True
                found.append((event, b""))
    assert parser.complete
    assert not open_part
    return found


@given(st.binary(max_size=300).filter(lambda data: b"\r\n--form" not in data), st.integers(1, 80))
def test_a_form_is_parsed_the_same_however_it_is_cut(content: bytes, size: int) -> None:
    assert parts(form(content), size) == [
        (Part("purpose", None), b"batch"),
        (Part("file", "in.jsonl"), content),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n-",
        b"\r\n--for",
        b"--form--",
        b"\n--form--\r\n",
        b"\r\r\n--fo",
    ],
)
def test_what_looks_like_a_boundary_is_content(content: bytes) -> None:
    assert parts(HEAD + content + b"\r\n--form--\r\n") == [(Part("file", "a"), content)]


@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n--form\r\n",
        b"--other\r\n",
        b"--form \r\n",
        HEAD + b"x\r\n--formular\r\n",
        b"--form\r\nContent-Type: text/plain\r\n\r\nx\r\n--form--",
        b'--form\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--form--',
        b"--form\r\n" + b"a" * (MAX_PART_HEAD + 1),
        HEAD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
        (HEAD + b"x\r\n") * (MAX_PARTS + 1),
    ],
)
def test_other_bodies_are_rejected(body: bytes) -> None:
    parser = FormParser(b"form")

    with pytest.raises(BadForm):
        list(parser.feed(body))


def test_what_follows_the_last_boundary_is_ignored() -> None:
    assert parts(HEAD + b"x\r\n--form--\r\n" + b"--form\r\n" * 100) == [(Part("file", "a"), b"x")]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data; charset=utf-8; boundary="a b"', b"a b"),
        (b"multipart/form-data;boundary=----x", b"----x"),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/mixed; boundary=a",
        b"multipart/form-data; boundary=" + b"a" * 71,
    ],
)
def test_a_body_without_a_boundary_is_rejected(content_type: bytes) -> None:
    with pytest.raises(BadForm):
        boundary_of(content_type)
