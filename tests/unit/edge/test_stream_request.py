import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.stream_request import SMALL, wants_stream, wants_stream_large

ASKS = [
    b'{"stream":true}',
    b'{ "stream" \t:\r\n true }',
    b'{"messages":[{"stream":false}],"stream":true,"n":1}',
    b'{"a":"\\"","b":"\\\\","stream":true}',
    b'{"stream":false,"stream":true}',
    b'{"stream":true,"a":"}{]["}',
    b'{"a":"","":"","stream":true}',
]
ASKS_NOT = [
    b"",
    b"{}",
    b"hello",
    b'"stream":true',
    b'[{"stream":true}]',
    b'{"stream":false}',
    b'{"stream":"true"}',
    b'{"stream":1}',
    b'{"stream":null}',
    b'{"Stream":true}',
    b'{"xstream":true}',
    b'{"a":{"stream":true}}',
    b'{"a":[{"stream":true}]}',
    b'{"a":"\\"stream\\":true"}',
    b'{"a":"{\\"stream\\":true}"}',
    b'{"a\\"stream":true}',
    b'{"stream":true,"stream":false}',
    b'{"a":"stream"}',
    b'{"a":"stream\\',
]


@pytest.mark.parametrize("body", ASKS)
async def test_only_a_true_stream_at_the_top_asks_for_one(body: bytes) -> None:
    assert wants_stream(body)
    assert await wants_stream_large(body)


@pytest.mark.parametrize("body", ASKS_NOT)
async def test_all_else_asks_for_none(body: bytes) -> None:
    assert not wants_stream(body)
    assert not await wants_stream_large(body)


@pytest.mark.parametrize(
    "body", [b'{"stream":true', b'{"stream":true,}', b'{"stream":true}}', b"\xff"]
)
def test_what_is_no_json_asks_for_none(body: bytes) -> None:
    assert not wants_stream(body)


def test_json_too_deep_for_a_parser_asks_for_none() -> None:
    assert not wants_stream(b'{"stream":true,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


KEYS = st.sampled_from(["stream", 'a"stream', "a"])
TEXTS = st.text(st.sampled_from('"\\{}[]:strue')) | st.just('"stream":true')
TREES = st.recursive(
    st.booleans() | TEXTS | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(st.dictionaries(KEYS, TREES), st.sampled_from([None, 1]))
def test_both_ways_to_look_see_the_same(tree: dict[str, object], indent: int | None) -> None:
    body = json.dumps(tree, indent=indent).encode()

    asks = tree.get("stream") is True
    assert wants_stream(body) == asks
    assert asyncio.run(wants_stream_large(body)) == asks


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("A" * 2_000_000, id="a photo"),
        pytest.param('x = "\\\\"\n' * 200_000, id="code"),
        pytest.param("\\" * 500_000, id="backslashes"),
        pytest.param([{"role": "user", "content": "hello"}] * 20_000, id="many messages"),
        pytest.param(list(range(200_000)), id="numbers"),
    ],
)
@pytest.mark.parametrize("asks", [True, False])
async def test_a_large_body_is_looked_at_while_all_else_goes_on(
    content: object, asks: bool
) -> None:
    body = json.dumps({"messages": content, "stream": asks}).encode()
    assert len(body) > SMALL
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(go_on())
    assert await wants_stream_large(body) is asks
    other.cancel()
    assert turns >= len(body) / 100_000


async def test_a_body_of_very_many_pieces_is_not_worth_the_time() -> None:
    body = b'{"stream":true,"a":[' + b"[]," * 200_000 + b"[]]}"

    assert not await wants_stream_large(body)
