import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.model_field import model_in_form, model_in_json, model_in_small_json
from slotkeeper.edge.request_body import SMALL
from slotkeeper.wire.errors import HttpError

LARGE = b" " * SMALL
"""Appended to a body, so that it is scanned in steps."""

KEYS = st.sampled_from(["model", 'a"model', "models", "Model", "a"])
TEXTS = st.text(st.sampled_from('"\\{}[]:model\u20ac')) | st.just('"model":"x"')
TREES = st.recursive(
    st.booleans() | TEXTS | st.integers() | st.floats(allow_nan=False) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


def result(body: bytes) -> str | None:
    """Return the model, or the code of the error."""
    try:
        return model_in_small_json(body)
    except HttpError as error:
        return f"error {error.code}"


def result_in_steps(body: bytes) -> str | None:
    try:
        return asyncio.run(model_in_json(body + LARGE))
    except HttpError as error:
        return f"error {error.code}"


@given(st.dictionaries(KEYS, TREES), st.sampled_from([None, 1]), st.booleans())
def test_both_functions_find_the_model_that_a_parser_finds(
    tree: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(tree, indent=indent, ensure_ascii=ascii_only).encode()
    model = tree.get("model")
    expected = (model or None) if isinstance(model, str) or model is None else "error invalid_model"

    assert result(body) == expected
    assert result_in_steps(body) == expected


@given(st.lists(st.tuples(KEYS, TREES), max_size=6))
def test_both_functions_reject_a_repeated_model(members: list[tuple[str, Any]]) -> None:
    pairs = (f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members)
    body = f"{{{','.join(pairs)}}}".encode()
    repeated = sum(key == "model" for key, _ in members) > 1

    assert (result(body) == "error ambiguous_model") == repeated
    assert (result_in_steps(body) == "error ambiguous_model") == repeated


@given(st.binary(max_size=300))
def test_any_bytes_are_a_model_or_an_error(body: bytes) -> None:
    for found in (result(body), result_in_steps(body)):
        assert found is None or isinstance(found, str)


@given(
    st.binary(max_size=300) | st.just(b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\n")
)
def test_any_bytes_are_a_form_or_none(body: bytes) -> None:
    found = asyncio.run(model_in_form(b"multipart/form-data; boundary=b", body))

    assert found is None or isinstance(found, str)


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"b" * 71,
        b'multipart/form-data; boundary="b',
    ],
)
async def test_a_form_without_a_valid_boundary_names_no_model(content_type: bytes) -> None:
    assert await model_in_form(content_type, b"--b\r\n\r\n\r\n--b--") is None


async def test_a_large_body_is_scanned_in_steps() -> None:
    body = b'{"a":"%s","b":[%s""],"model":"x"}' % (b"x" * 10_000_000, b'"",' * 100_000)
    turns = 0
    done = False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    assert await model_in_json(body) == "x"
    done = True
    await counting
    # Other tasks run after each 64 KiB of a string, and after each 250 strings.
    assert turns > 10_000_000 / 65_536 + 100_000 / 250 - 1


@pytest.mark.parametrize(
    "text",
    [
        b'\\"' * 200_000,
        b"\\\\" * 300_000,
        b"\\\\" * 300_000 + b'\\"x',
        b"x" * 65_535 + b'\\"' + b"x" * 65_534 + b"\\\\",
        b'\\\\\\"","model":"y' + b"x" * 100_000,
    ],
    ids=range(5),
)
async def test_escapes_at_any_place_do_not_end_a_string(text: bytes) -> None:
    body = b'{"a":"%s","model":"x"}' % text
    expected = json.loads(body)["model"]

    if body.count(b'"model"') == 1:
        assert await model_in_json(body) == expected
    else:
        assert (
            await model_in_json(b'{"b":"%s"}' % text) == json.loads(b'{"b":"%s"}' % text)["model"]
        )
