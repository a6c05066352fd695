"""The bounded JSON reader: valid JSON is read as `json.loads` does, all else is a ValueError."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.bounded_json import BoundsError, parse

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(TREES, st.booleans())
def test_valid_json_is_read_as_by_the_standard_library(tree: Any, escaped: bool) -> None:
    text = json.dumps(tree, ensure_ascii=escaped)

    assert parse(text, max_bytes=10**6) == json.loads(text)
    assert parse(f" {text}\n".encode(), max_bytes=10**6) == json.loads(text)


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[" + "1," * 1000 + "1]", "bytes, at most 1000", id="long"),
        pytest.param(nested(5), "deeper than 4 levels", id="deep"),
        pytest.param(nested(400, '{"a":', "}").replace(":}", ":1}"), "nested|deeper", id="object"),
        pytest.param("NaN", "contains NaN", id="NaN"),
        pytest.param("[Infinity]", "contains Infinity", id="infinity"),
        pytest.param('{"a": -Infinity}', "contains -Infinity", id="minus infinity"),
        pytest.param("1e400", "beyond 64 bits", id="huge float"),
        pytest.param("1" * 30, "beyond 64 bits", id="long integer"),
        pytest.param(str(2**64), "beyond 64 bits", id="integer of 65 bits"),
        pytest.param(r'"\ud800"', "lone surrogate", id="lone surrogate"),
        pytest.param(r'{"\uDC00": 1}', "lone surrogate", id="lone surrogate in a key"),
    ],
)
def test_what_breaks_a_bound_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BoundsError, match=message):
        parse(text, max_bytes=10_000 if "nested" in message else 1000, max_depth=4)


@pytest.mark.parametrize("depth", [1001, 9_992, 200_000])
def test_no_depth_ends_the_process(depth: int) -> None:
    for text in (nested(depth), "[" * depth, '{"a":' * depth):
        with pytest.raises(ValueError, match=r"."):
            parse(text, max_bytes=10**7)


def test_a_depth_at_the_bound_is_read() -> None:
    assert parse(nested(4), max_bytes=100, max_depth=4) == [[[[]]]]


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', '"\U0001f600"'])
def test_a_pair_of_surrogates_is_a_character(text: str) -> None:
    assert parse(text, max_bytes=100) == "\U0001f600"


@given(st.binary())
def test_random_bytes_are_json_or_a_value_error(body: bytes) -> None:
    try:
        parse(body, max_bytes=100)
    except ValueError:
        return


@pytest.mark.parametrize("body", [b"", b"{", b"[1] 2", b"\xff", b'\xef\xbb\xbf"bom"', b"'a'"])
def test_what_is_no_json_in_utf8_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(body, max_bytes=100)


def test_a_long_integer_is_not_converted() -> None:
    # Python converts an integer in quadratic time: this one would take seconds.
    with pytest.raises(BoundsError):
        parse("1" * 4_000_000, max_bytes=10**7)
