import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.json_members import MAX_LOCATED, NO_MEMBERS, Members, locate, parse
from slotkeeper.edge.nesting import nesting

NAMES = ["tools", "messages", 'a"', "\\", "é", "]"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('a"\\[]{},:é', max_size=6)
    # Longer than a piece, or than a step.
    | st.sampled_from(["x" * 5000, "\\" * 5000, '["' * 40_000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner),
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON)


def located(body: bytes) -> Members:
    return asyncio.run(locate(body, list(nesting(body))))


def values(members: Members) -> dict[str, Any]:
    return {name: json.loads(members.value(name, 2**30) or b"null") for name in members.spans}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@given(OBJECTS)
def test_the_members_of_any_object_are_located(
    ascii_only: bool, indent: int | None, tree: dict[str, Any]
) -> None:
    body = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode()

    assert values(located(body)) == tree
    if tree:
        parsed, members = parse(body)
        assert parsed == values(members) == tree


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b'{"a":1,"a":2}', {"a": b"2"}),
        (b'{"\\u0061":[1]}', {"a": b"[1]"}),
        (b'{"b":0,"\\u0061":[1],"c":"}"}', {"a": b"[1]", "b": b"0", "c": b'"}"'}),
        (b'\xef\xbb\xbf \r\n{\t"a" :\n "\\"" } \n', {"a": b'"\\""'}),
        (b'{"a":"\\"tools\\":[1],","b":{"tools":[2]}}', {"b": b'{"tools":[2]}'}),
        (b'{"a":["]",{"b":"\\\\"}],"b":2}', {"a": b'["]",{"b":"\\\\"}]', "b": b"2"}),
        (b'{"a":null,"b":-1.5e3}', {"a": b"", "b": b"-1.5e3"}),
        (b'{"a":true}', {"a": b"true", "b": b""}),
    ],
)
def test_values_are_returned_as_they_were_sent(body: bytes, members: dict[str, bytes]) -> None:
    for found in (parse(body)[1], located(body)):
        assert {name: found.value(name, 100) for name in members} == members


@pytest.mark.parametrize("size", range(6))
def test_the_beginning_of_a_value_is_cut_at_a_byte(size: int) -> None:
    body = '{"a":"éé"}'.encode()

    for members in (parse(body)[1], located(body)):
        assert members.value("a", size) == '"éé"'.encode()[:size]


INVALID = [
    b"",
    b"[]",
    b'"a":1',
    b'{"a"}',
    b'{"a":}',
    b'{"a":1 "b":2}',
    b'{"a":[1,2',
    b'{"a":"b',
    b'{"a":1,}x',
    b'{"a\\x":1}',
    b'{"a":\xff}',
]


@pytest.mark.parametrize("body", INVALID)
def test_invalid_json_has_no_members(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(body)
    assert located(body).spans.keys() <= {"a"}
    assert located(body).value("a", 9) in {b"", b"1"}


@given(st.text('{}[]",:\\ a1', max_size=40))
def test_no_text_is_an_error(text: str) -> None:
    located(b'{"a":' + text.encode())


def test_a_body_of_very_many_members_is_not_read_to_its_end() -> None:
    body = json.dumps({f"a{number}": 1 for number in range(MAX_LOCATED)}).encode()

    assert len(located(body).spans) == MAX_LOCATED
    assert located(body[:-1] + b',"b":1}') is NO_MEMBERS


@pytest.mark.parametrize("container", [b"[%b]", b'{"a":[%b]}'])
@pytest.mark.parametrize("inner", [b"[],", b'"\\"",', b"1,", b"{" * 100 + b"}" * 100 + b","])
@pytest.mark.parametrize("size", [4_000, 70_000, 200_000])
def test_what_is_nested_is_passed_over(container: bytes, inner: bytes, size: int) -> None:
    value = container % (inner * (size // len(inner)))[:-1]
    tools = container % (inner * 3)[:-1]
    body = b'{"tools":%b,"messages":%b,"n":2}' % (tools, value)

    members = located(body)
    assert members.value("tools", size) == tools
    assert members.value("messages", 2 * size) == value
    assert members.value("n", 2) == b"2"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"[]," * 1_000_000,
        b'{"a":"' + b'\\"' * 1_000_000,
        b"{" + b" " * 3_000_000,
        b'{"a":' + b"1" * 3_000_000,
        b'{"' + b"a" * 3_000_000,
        b"{" + b'"a":[],' * 400_000,
        b"{" + (b" " * 4000 + b'"a":"",') * 800,
        b"{" + (b'"a":[' + b"[]," * 20_000 + b"[]],") * 50,
    ],
)
def test_no_body_takes_long(body: bytes) -> None:
    steps = list(nesting(body))
    before = time.process_time()

    asyncio.run(locate(body, steps))
    assert time.process_time() - before < 1
