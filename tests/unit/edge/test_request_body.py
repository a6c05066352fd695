import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.request_body import (
    MAX_DEPTH,
    MAX_GRAMMAR_DEPTH,
    check_encoding,
    inspect,
    inspect_large,
)
from slotkeeper.edge.top_level import MAX_MARKS
from slotkeeper.llamacpp.tasks import Tasks
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

CHAT = b"/v1/chat/completions"
COMPLETION = b"/completion"
EMBEDDINGS = b"/v1/embeddings"
PADDING = ' "padding": "' + "x" * 70_000 + '",'


def both(path: bytes, body: bytes) -> list[Tasks | str]:
    """Return the tasks, or the error's code, of a body in one step and in several."""

    def result(work: Callable[[], Tasks]) -> Tasks | str:
        try:
            return work()
        except HttpError as error:
            return error.code

    return [
        result(lambda: inspect(path, body).tasks),
        result(lambda: asyncio.run(inspect_large(path, body)).tasks),
    ]


def nested(depth: int, inner: str = "1") -> bytes:
    arrays = depth - 1
    return ('{"a":' + "[" * arrays + inner + "]" * arrays + "}").encode()


@pytest.mark.parametrize(
    ("body", "tasks"),
    [
        (b'{"prompt": "a", "n": 3}', (1, 3)),
        (b'{"prompt": ["a", "b"], "n": 2}', (2, 2)),
        (b'{"prompt": ["a, [b", "c\\\\", "\\"d"], "stream": true}', (3, 1)),
        (b'{"prompt": [[1, 2], [3]]}', (2, 1)),
        (b'{"prompt": ["a", 2]}', (1, 1)),
        (b'{"prompt": [{"prompt_string": "a", "x": ["b", 1]}, "c"]}', (2, 1)),
        (b'{"prompt": ["a", "b"], "x": {"n": 7, "prompt": ["c"]}}', (2, 1)),
        (b'{"n": 2, "prompt": "\\"n\\": 7"}', (1, 2)),
        (b'{"prompt": "a", "\\u006e": 2}', (1, 2)),
        (b'{"prompt": "a", "n": 1, "n": 2}', (1, 2)),
        (b'{"prompt": "a", "x": %s, "n": 2}' % (b"9" * 5000), (1, 2)),
        (b'\xef\xbb\xbf{"prompt": "a", "n": 2}', (1, 2)),
        (b'{"prompt": []}', (1, 1)),
        (b'{"prompt": "a"', (1, 1)),
        (b'{"prompt": "\xff"}', (1, 1)),
        (b"[1]", (1, 1)),
        (b"", (1, 1)),
    ],
)
def test_tasks_are_counted_in_a_body_of_any_size(body: bytes, tasks: tuple[int, int]) -> None:
    padded = body.replace(b"{", b"{" + PADDING.encode(), 1) if b"n" in body else body

    assert both(COMPLETION, body) == both(COMPLETION, padded) == [Tasks(*tasks)] * 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["n", "prompt", "input", 'q"', "\\"]), inner)
    ),
)


@given(JSON, st.sampled_from([CHAT, COMPLETION, EMBEDDINGS]), st.booleans())
def test_one_step_and_several_find_the_same(tree: Any, path: bytes, ascii_only: bool) -> None:
    small, large = both(path, json.dumps(tree, ensure_ascii=ascii_only).encode())

    assert small == large


@pytest.mark.parametrize("inner", ["1", '"]"', '"\\\\"', '"[\\"["', '{"b":"}"}'])
def test_nesting_is_bounded(inner: str) -> None:
    extra = inner.count("{") - inner.count('"}"}')
    most = MAX_DEPTH - extra - (1 if inner.startswith("{") else 0)

    assert both(CHAT, nested(most, inner)) == [Tasks()] * 2
    assert both(CHAT, nested(most + 1, inner)) == ["nested_too_deeply"] * 2
    assert both(CHAT, nested(60_000, inner)) == ["nested_too_deeply"] * 2


def test_brackets_in_strings_do_not_count() -> None:
    body = json.dumps({"prompt": '["[[' * 1000, "x": ["{" * 500] * 10}).encode()

    assert both(COMPLETION, body) == [Tasks()] * 2


def test_closing_brackets_in_strings_do_not_hide_the_depth() -> None:
    body = b'{"a":["]",' * 100 + b"1" + b"]}" * 100

    assert both(CHAT, body) == ["nested_too_deeply"] * 2


@pytest.mark.parametrize("cut", range(64 * 1024 - 6, 64 * 1024 + 6))
def test_an_escape_at_the_end_of_a_step_is_not_divided(cut: int) -> None:
    # Read wrongly, the string would end at the escaped quote, and its brackets would count.
    text = "x" * (cut - len('{"a":"')) + '\\\\\\"' + "[" * 200
    body = f'{{"a":"{text}","n":2}}'.encode()

    assert both(COMPLETION, body) == [Tasks(1, 2)] * 2


@pytest.mark.parametrize("count", [64 * 1024 - 20, 64 * 1024, 150_000, 1_000_001])
def test_a_run_of_backslashes_hides_nothing_behind_it(count: int) -> None:
    text = "\\" * (count + count % 2)
    body = f'{{"a":"{text}","b":{"[" * 100}{"]" * 100},"n":2}}'.encode()

    assert both(COMPLETION, body) == [Tasks(1, 2)] * 2
    assert both(COMPLETION, body.replace(b"[", b"[[")) == ["nested_too_deeply"] * 2


def grammar(text: str, **more: object) -> bytes:
    return json.dumps({"prompt": "a", "grammar": text, **more}).encode()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (grammar("root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000), "invalid_grammar"),
        (grammar("root ::= " + "(" * 129 + '"a"' + ")" * 129), "invalid_grammar"),
        (grammar("root ::= " + "(" * 128 + '"a"' + ")" * 128), None),
        (grammar('root ::= ("a" | "b") ' * 500), None),
        (grammar('root ::= "' + "(" * 500 + '" [(' + "(" * 500 + "]"), None),
        (grammar("a", grammar_triggers=[{"type": 99, "value": "x"}]), "invalid_grammar"),
        (grammar("a", grammar_triggers=[{"type": -1, "value": "x"}]), "invalid_grammar"),
        (grammar("a", grammar_triggers=[{"type": 3, "value": "x"}, {"type": 0}]), None),
        (grammar("a", grammar_triggers=[{"type": 3.5, "value": "x"}]), "invalid_grammar"),
        (grammar("a", grammar_triggers=[7]), "invalid_grammar"),
        (grammar("a", grammar_triggers=None), None),
    ],
)
def test_grammars_that_end_llama_server_are_rejected(body: bytes, error: str | None) -> None:
    assert both(COMPLETION, body)[0] == (error or Tasks())


@pytest.mark.parametrize(
    "tail",
    ["[", '\\"', "\\", "<", "#", '"', "[\\]", '[^"\\'],
)
@pytest.mark.parametrize("begin", ["", '"', "[", "<"])
def test_no_grammar_takes_long_to_check(begin: str, tail: str) -> None:
    grammar = "(" * (MAX_GRAMMAR_DEPTH + 1) + begin + tail * (60_000 // len(tail))
    before = time.process_time()

    both(COMPLETION, json.dumps({"grammar": grammar[:50_000]}).encode())
    assert time.process_time() - before < 1  # it took minutes


@pytest.mark.parametrize("literal", ['<|"|>', "<[5]>", '!<">', '"\\""', '[^"]', "[<]", "# <\n"])
def test_no_literal_hides_the_depth_of_a_grammar(literal: str) -> None:
    body = {"grammar": f"root ::= {literal} " + "(" * (MAX_GRAMMAR_DEPTH + 1) + literal}

    assert both(COMPLETION, json.dumps(body).encode()) == ["invalid_grammar"] * 2


@pytest.mark.parametrize("value", [b'""', b"[]", b"{}"])
@pytest.mark.parametrize("rest", [b"\xff", b"\xc3\xa9"])
def test_no_keys_take_long_to_read(value: bytes, rest: bytes) -> None:
    body = b"{" + b'"prompt":%b,' % value * 5000 + b'"x":"' + rest * 250_000 + b'"}'
    before = time.process_time()

    both(COMPLETION, body)
    assert time.process_time() - before < 3  # it took twenty seconds


@pytest.mark.parametrize("count", [1, 101])
@pytest.mark.parametrize("bounds", ["{0, 1999}", "{1999}", "{00000000001999,}", "{0,# }\n1999}"])
def test_repetitions_that_keep_llama_server_busy_for_minutes_are_rejected(
    bounds: str, count: int
) -> None:
    body = json.dumps({"grammar": 'root ::= "{0,9}" ' + f'"a"{bounds} ' * count}).encode()

    expected: Tasks | str = Tasks() if count == 1 else "invalid_grammar"
    assert both(COMPLETION, body) == [expected] * 2


@pytest.mark.parametrize("field", ["repeat_last_n", "dry_penalty_last_n"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("-1", None),
        ("64", None),
        ("1048576", None),
        ("null", None),
        ("1048577", "invalid_sampling"),
        ("2147483647", "invalid_sampling"),
        ("-2147483649", "invalid_sampling"),
        ("2e9", "invalid_sampling"),
    ],
)
def test_samplers_do_not_look_back_on_more_tokens_than_the_memory_holds(
    field: str, value: str, error: str | None
) -> None:
    body = f'{{"{field}": {value}, "prompt": "a"}}'.encode()
    large = f'{{"{field}": {value}, {PADDING} "prompt": "a"}}'.encode()

    assert both(CHAT, body) == [error or Tasks()] * 2
    assert both(CHAT, large) == [error or Tasks()] * 2


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        pytest.param('"n_discard": 0', None, id="default number of discarded tokens"),
        pytest.param('"n_discard": 128', None, id="discarded tokens"),
        pytest.param('"n_discard": null', None, id="null"),
        pytest.param('"n_discard": -1', "invalid_sampling", id="negative"),
        pytest.param('"n_discard": -0.5e1', "invalid_sampling", id="negative float"),
        pytest.param('"n_discard": 4294967295', "invalid_sampling", id="negative in 32 bits"),
        pytest.param('"n_\\u0064iscard": -1', "invalid_sampling", id="escaped name"),
        pytest.param('"chat_parser": ""', None, id="no parser"),
        pytest.param('"chat_parser": "{}"', "internal_field", id="parser"),
        pytest.param('"chat_parser": {"a": 1}', "internal_field", id="parser as an object"),
        pytest.param('"chat_parser": "", "chat_parser": "{}"', "internal_field", id="twice"),
    ],
)
def test_fields_by_which_clients_reach_freed_or_foreign_memory_are_rejected(
    fields: str, error: str | None
) -> None:
    body = f'{{{fields}, "prompt": "a"}}'.encode()
    large = f'{{{fields}, {PADDING} "prompt": "a"}}'.encode()

    assert both(COMPLETION, body) == [error or Tasks()] * 2
    assert both(CHAT, large) == [error or Tasks()] * 2


def test_a_grammar_in_a_large_body_is_checked_too() -> None:
    deep = "root ::= " + "(" * 200 + '"a"' + ")" * 200
    body = grammar(deep, padding="x" * 100_000)
    triggers = grammar("a", grammar_triggers=[{"type": 99}], padding="x" * 100_000)

    assert both(COMPLETION, body) == ["invalid_grammar"] * 2
    assert both(COMPLETION, triggers) == ["invalid_grammar"] * 2
    long = [{"type": 1, "value": "x" * 100}] * 1000
    assert both(COMPLETION, grammar("a", grammar_triggers=long))[1] == "invalid_grammar"
    assert MAX_GRAMMAR_DEPTH < 200

    for depth in (30_000, 60_000, 200_000):
        deep = "root ::= " + "(" * depth + '"a"' + ")" * depth
        assert both(COMPLETION, grammar(deep, padding="x" * 100_000)) == ["invalid_grammar"] * 2


def test_a_large_body_of_very_many_values_is_rejected() -> None:
    body = json.dumps({"input": ["a"] * (MAX_MARKS + 1)}).encode()

    assert both(EMBEDDINGS, body) == [Tasks(MAX_MARKS + 1), "too_many_values"]


@pytest.mark.parametrize(
    ("path", "header", "accepted"),
    [
        (CHAT, (b"Content-Encoding", b"gzip"), False),
        (CHAT, (b"Content-Encoding", b"Identity"), True),
        (COMPLETION, (b"Content-Type", b"multipart/form-data; boundary=X"), False),
        (b"/v1/audio/transcriptions", (b"Content-Type", b"Multipart/form-data; boundary=X"), True),
        (CHAT, (b"Content-Type", b"application/json"), True),
    ],
)
def test_a_body_that_cannot_be_inspected_is_rejected(
    path: bytes, header: tuple[bytes, bytes], accepted: bool
) -> None:
    request = Request(b"POST", path, [header], True, True)
    if accepted:
        check_encoding(request)
        return
    with pytest.raises(HttpError) as caught:
        check_encoding(request)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_encoding")


def test_a_form_is_one_task() -> None:
    assert both(b"/v1/audio/transcriptions", b"--X\r\n" + b"[" * 500) == [Tasks()] * 2
