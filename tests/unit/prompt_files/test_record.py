import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.prompt_files.record import MAX_PREFIXES, MAX_RECORD_BYTES, Content, Record

CONTENT: dict[str, Any] = {"bytes": 5, "tokens": 3, "prefixes": [1], "compatible": "ab"}

contents = st.builds(
    Content,
    st.integers(1, 2**50),
    st.integers(1, 2**31),
    st.lists(st.integers(-(2**63), 2**64 - 1), max_size=MAX_PREFIXES).map(tuple),
    st.text("0123456789abcdef", min_size=1, max_size=64),
)
records = st.builds(
    Record, contents, st.text("0123456789abcdef", max_size=32), st.integers(0, 2**40)
)


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    text = record.to_json()

    assert len(text) <= MAX_RECORD_BYTES
    assert Record.from_json(text) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"bytes": 0},
        {"bytes": True},
        {"bytes": 1.5},
        {"bytes": 2**60},
        {"bytes": None},
        {"tokens": 0},
        {"tokens": "3"},
        {"prefixes": None},
        {"prefixes": [1] * (MAX_PREFIXES + 1)},
        {"prefixes": ["1"]},
        {"prefixes": [False]},
        {"compatible": ""},
        {"compatible": "a" * 65},
        {"compatible": "AB"},
        {"compatible": "ab\n"},
        {"compatible": 1},
    ],
)
def test_a_malformed_field_is_rejected(changes: dict[str, Any]) -> None:
    assert Content.from_tree(CONTENT)
    assert Content.from_tree(CONTENT | changes) is None
    tree = CONTENT | {"model": "", "savedAt": 1}
    assert Record.from_json(json.dumps(tree).encode())
    assert Record.from_json(json.dumps(tree | changes).encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps(CONTENT | {"model": 1, "savedAt": 1}).encode(),
        json.dumps(CONTENT | {"model": "", "savedAt": -1}).encode(),
        json.dumps(CONTENT | {"model": ""}).encode(),
        json.dumps(CONTENT | {"model": "", "savedAt": 1, "x": "x" * MAX_RECORD_BYTES}).encode(),
    ],
)
def test_a_malformed_record_is_none(text: bytes) -> None:
    assert Record.from_json(text) is None


@given(st.binary())
def test_any_bytes_can_be_read(text: bytes) -> None:
    Record.from_json(text)
