"""Responses of the API server: one hostile object is an outline, and all others are read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.kube.cluster import UNREADABLE
from slotkeeper.kube.decode import (
    MAX_DEPTH,
    decode_event,
    decode_list,
    decode_object,
    outline,
)

IDENTITY: Any = {
    "name": "a",
    "namespace": "n",
    "uid": "u",
    "resourceVersion": "7",
    "generation": 2,
    "labels": {"slotkeeper.dev/server": "chat"},
}
OUTLINE: Any = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": IDENTITY,
    "status": {"phase": "Running"},
}
OWNERS = '[{"uid": "1"}, {"controller": true, "uid": "2"}]'


def deep(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def hostile(value: str, *, where: str = "spec") -> str:
    """An object, as JSON, with this value in its spec, its metadata or its status."""
    metadata = {**IDENTITY, "labels": {**IDENTITY["labels"], "other": "x"}, "finalizers": ["f"]}
    tree: Any = {**OUTLINE, "metadata": metadata, "status": dict(OUTLINE["status"])}
    inner = tree if where == "spec" else tree[where]
    inner["hostile"] = ["VALUE", 'a "quoted" ]}{[ \\']
    return json.dumps(tree).replace('"VALUE"', value)


HOSTILE = [
    pytest.param(deep(100), id="deep"),
    pytest.param(deep(9_992), id="as deep as the API server reads"),
    pytest.param('{"a":' * 9_000 + "1" + "}" * 9_000, id="deep objects"),
    pytest.param('[{"a":' * 3_000 + '"]"' + "}]" * 3_000, id="mixed"),
    pytest.param("1e999", id="number"),
    pytest.param(r'"\ud800"', id="surrogate"),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_item_costs_only_itself(value: str) -> None:
    good = {"metadata": {"name": "good"}, "spec": {"a": [1, {"b": None}]}}
    items = ", ".join([json.dumps(good), hostile(value), json.dumps(good)])
    body = f'{{"kind":"List", "items" : [ {items} ], "metadata":{{"resourceVersion":"9"}} }}'

    tree = decode_list(body.encode())

    assert tree["metadata"] == {"resourceVersion": "9"}
    assert [tree["items"][0], tree["items"][2]] == [good, good]
    assert tree["items"][1].pop(UNREADABLE)
    assert tree["items"][1] == OUTLINE


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_object_of_an_event_is_an_outline(value: str) -> None:
    line = f'{{"type":"MODIFIED","object":{hostile(value)}}}'

    event = decode_event(line.encode())

    assert event["type"] == "MODIFIED"
    assert event["object"].pop(UNREADABLE)
    assert event["object"] == OUTLINE


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_metadata_and_status_are_left_out(value: str) -> None:
    in_metadata = decode_object(hostile(value, where="metadata").encode())
    in_status = decode_object(hostile(value, where="status").encode())

    assert in_metadata == {**OUTLINE, UNREADABLE: in_metadata[UNREADABLE]}
    assert in_status == {
        **{key: OUTLINE[key] for key in ("apiVersion", "kind", "metadata")},
        UNREADABLE: in_status[UNREADABLE],
    }


def test_an_outline_has_the_controller_and_no_other_owner() -> None:
    text = hostile(deep(9_000)).replace('"uid": "u"', f'"uid": "u", "ownerReferences": {OWNERS}')

    found = decode_object(text.encode())

    assert found["metadata"]["ownerReferences"] == [{"controller": True, "uid": "2"}]


def test_a_decoded_object_and_its_text_have_the_same_outline() -> None:
    text = hostile(deep(MAX_DEPTH + 1))

    assert outline(json.loads(text), "why") == {**decode_object(text.encode()), UNREADABLE: "why"}


@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda tree: {"metadata": {}, "spec": tree})
)
def test_an_object_within_bounds_is_read_completely(tree: Any) -> None:
    assert decode_object(json.dumps(tree).encode()) == tree
    assert decode_list(json.dumps({"items": [tree, tree]}).encode()) == {"items": [tree, tree]}
    event = {"type": "ADDED", "object": tree}
    assert decode_event(json.dumps(event, indent=1).encode()) == event


@pytest.mark.parametrize("items", ["null", "[]"])
def test_a_list_may_be_empty(items: str) -> None:
    assert not decode_list(f'{{"items":{items},"metadata":{{}}}}'.encode())["items"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"null",
        b'{"items":[{"a":1}',
        b'{"items":[1]}',
        b'{"items":[' + b'{"a":[' * 2000,
        b'{"items":[{"a":' + b"[" * 2000 + b'"unterminated \\"' * 2000,
        b'{"items":[{1:2}]}',
        b"\xff",
    ],
)
def test_truncated_or_malformed_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_list(body)
