import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.slots import Slot, SlotsParseError, parse_slots, processing

REAL = (
    b'[{"id":0,"n_ctx":1024,"speculative":false,"is_processing":false},'
    b'{"id":1,"id_task":7,"n_ctx":1024,"speculative":false,"is_processing":true,'
    b'"params":{"seed":1},"next_token":[{"n_decoded":3}]}]'
)

json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "is_processing", "n_ctx", "x"]), inner)
    ),
    max_leaves=12,
)


def test_a_real_response_is_parsed() -> None:
    slots = parse_slots(REAL)

    assert slots == (
        Slot(0, is_processing=False, n_ctx=1024, speculative=False),
        Slot(1, True, 1024, 7, decoded=3, speculative=False),
    )
    assert processing(slots) == 1


def test_only_id_and_is_processing_are_required() -> None:
    assert parse_slots('[{"id": 3, "is_processing": true}]') == (Slot(3, True, 0),)


def test_a_slot_that_ignores_the_draft_is_known_by_its_field() -> None:
    slots = parse_slots(
        '[{"id": 0, "is_processing": false, "speculative": false},'
        ' {"id": 1, "is_processing": false, "speculative": true},'
        ' {"id": 2, "is_processing": false}]'
    )

    assert [slot.speculative for slot in slots] == [False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"id": 0}]',
        b'[{"id": "0", "is_processing": false}]',
        b'[{"id": true, "is_processing": false}]',
        b'[{"id": 0, "is_processing": 0}]',
        b'[{"id": 0, "is_processing": false}, {"id": 0, "is_processing": false}]',
        b'{"error": {"code": 503, "message": "Loading model"}}',
        b"[" * 100_000,
        b'[{"id": 0, "is_processing": false, "a": 1e400}]',
        b'[{"id": 0, "is_processing": false, "a": Infinity}]',
        b'[{"id": 123456789012345678901234567890, "is_processing": false}]',
        b'[{"id": 0, "is_processing": false, "a": ' + b"[" * 500 + b"]" * 500 + b"}]",
        json.dumps([{"id": i, "is_processing": False} for i in range(5000)]).encode(),
    ],
)
def test_a_malformed_response_is_rejected(body: bytes) -> None:
    with pytest.raises(SlotsParseError):
        parse_slots(body)


@given(json_trees)
def test_no_json_raises_another_error(tree: object) -> None:
    try:
        slots = parse_slots(json.dumps(tree))
    except SlotsParseError:
        return
    assert 0 <= processing(slots) <= len(slots)
