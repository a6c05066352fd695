"""Bodies of Ollama's API: long strings pass through without being decoded."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.ollama import requests
from slotkeeper.gateway.ollama.body import Body, read, read_small
from slotkeeper.wire.errors import HttpError

LONG = "x" * 5000
IMAGE = "iVBORw0KGgo" + "A" * 100_000

texts = st.text(max_size=20) | st.builds(
    lambda text, times: text * times, st.text(min_size=1, max_size=3), st.just(5000)
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


async def read_padded(tree: Any, *, ascii_only: bool = False) -> Body:
    """Read a tree from a body that is too large to be decoded as a whole."""
    padded = {**tree, "padding": "p" * 100_000}
    data = json.dumps(padded, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    return await read(data)


@given(st.dictionaries(texts, trees, max_size=3), st.booleans())
def test_any_tree_is_encoded_as_it_was_received(tree: dict[str, Any], ascii_only: bool) -> None:
    body = asyncio.run(read_padded(tree, ascii_only=ascii_only))
    encoded = json.loads(b"".join(body.encode(body.tree)))

    del encoded["padding"]
    assert encoded == tree
    restored = body.restored(body.tree)
    assert restored == {**tree, "padding": "p" * 100_000}


async def test_long_strings_are_not_decoded_and_stay_in_place() -> None:
    image = {"role": "user", "content": 'He said "' + LONG + '"\\', "images": [IMAGE]}
    body = await read_padded({"messages": [image]})
    parts = body.encode(requests.chat(body, "m").tree)

    assert len(json.dumps(body.tree)) < 1000
    assert IMAGE.encode() in parts
    [text, picture] = json.loads(b"".join(parts))["messages"][0]["content"]
    assert text["text"] == image["content"]
    assert picture["image_url"]["url"] == f"data:image/png;base64,{IMAGE}"


async def test_long_strings_of_a_tools_arguments_are_arguments() -> None:
    call = {"function": {"name": "f", "arguments": {"text": LONG + '"', LONG: [1]}}}
    body = await read_padded({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    tree = json.loads(b"".join(body.encode(requests.chat(body, "m").tree)))

    [sent] = tree["messages"][0]["tool_calls"]
    assert json.loads(sent["function"]["arguments"]) == call["function"]["arguments"]


async def test_a_client_cannot_send_a_mark() -> None:
    first = await read_padded({"a": LONG})
    second = await read_padded({"a": f"{first.mark}0;", "b": LONG})

    assert first.mark != second.mark
    assert json.loads(b"".join(second.encode(second.tree)))["a"] == f"{first.mark}0;"


async def test_a_model_of_a_megabyte_is_a_name_like_any_other() -> None:
    body = await read(json.dumps({"model": "m" * 1_000_000}).encode())

    assert requests.model_of(body) == "m" * 1_000_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"model"', "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":"', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":"\xff"}', "invalid_json"),
        (b'{"model":"a","model":"b"}', "ambiguous_model"),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested_too_deeply"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested_too_deeply"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
async def test_invalid_bodies_are_rejected(data: bytes, code: str, large: bool) -> None:
    if large and data.startswith(b"{"):
        data = b'{"padding":"' + b"p" * 100_000 + b'",' + data[1:]
    elif large:
        data = b" " * 100_000 + data
    with pytest.raises(HttpError) as raised:
        await read(data)

    assert (raised.value.status, raised.value.code) == (400, code)


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"a": ["short"] * 100_000}).encode(),
        json.dumps({"a": [1] * 200_000}).encode(),
        b'{"a":"' + b"x" * 300_000 + b'"}' + b" " * 300_000,
        b"{" + b'"' * 1_000_000,
    ],
)
async def test_much_beside_long_strings_is_rejected(data: bytes) -> None:
    with pytest.raises(HttpError) as raised:
        await read(data)

    assert (raised.value.status, raised.value.code) == (413, "too_many_values")


def test_a_byte_order_mark_is_accepted() -> None:
    assert read_small(b'\xef\xbb\xbf{"a":1}').tree == {"a": 1}
