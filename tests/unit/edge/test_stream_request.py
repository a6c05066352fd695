import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.stream_request import SMALL, wants_stream, wants_stream_large

STREAM = [
    b'{"stream":true}',
    b'{ "stream" \t:\r\n true }',
    b'{"messages":[{"stream":false}],"stream":true,"n":1}',
    b'{"a":"\\"","b":"\\\\","stream":true}',
    b'{"stream":false,"stream":true}',
    b'{"stream":true,"a":"}{]["}',
    b'{"a":"","":"","stream":true}',
]
NO_STREAM = [
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


@pytest.mark.parametrize("body", STREAM)
async def test_true_at_the_top_level_requests_a_stream(body: bytes) -> None:
    assert wants_stream(body)
    assert await wants_stream_large(body)


@pytest.mark.parametrize("body", NO_STREAM)
async def test_anything_else_requests_no_stream(body: bytes) -> None:
    assert not wants_stream(body)
    assert not await wants_stream_large(body)


@pytest.mark.parametrize(
    "body", [b'{"stream":true', b'{"stream":true,}', b'{"stream":true}}', b"\xff"]
)
def test_invalid_json_requests_no_stream(body: bytes) -> None:
    assert not wants_stream(body)


def test_json_too_deep_for_a_parser_requests_no_stream() -> None:
    assert not wants_stream(b'{"stream":true,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


KEYS = st.sampled_from(["stream", 'a"stream', "a"])
TEXTS = st.text(st.sampled_from('"\\{}[]:strue')) | st.just('"stream":true')
TREES = st.recursive(
    st.booleans() | TEXTS | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(st.dictionaries(KEYS, TREES), st.sampled_from([None, 1]))
def test_both_functions_agree(tree: dict[str, object], indent: int | None) -> None:
    body = json.dumps(tree, indent=indent).encode()

    stream = tree.get("stream") is True
    assert wants_stream(body) == stream
    assert asyncio.run(wants_stream_large(body)) == stream


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
@pytest.mark.parametrize("stream", [True, False])
async def test_other_tasks_run_while_a_large_body_is_scanned(content: object, stream: bool) -> None:
    body = json.dumps({"messages": content, "stream": stream}).encode()
    assert len(body) > SMALL
    rounds = 0

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(count_rounds())
    assert await wants_stream_large(body) is stream
    other.cancel()
    assert rounds >= len(body) / 100_000


async def test_a_body_of_very_many_values_requests_no_stream() -> None:
    body = b'{"stream":true,"a":[' + b"[]," * 200_000 + b"[]]}"

    assert not await wants_stream_large(body)
