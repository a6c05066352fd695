"""Token usage in llama-server's responses. The formats are those of server-task.cpp in 2026."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.usage import BodyEdges, Tokens

CHAT, RESPONSES, MESSAGES = b"/v1/chat/completions", b"/v1/responses", b"/v1/messages"
EMBEDDINGS = b"/v1/embeddings"

TIMINGS = {
    "cache_n": 236,
    "prompt_n": 17,
    "prompt_ms": 30.958,
    "prompt_per_second": 549.1,
    "predicted_n": 35,
    "predicted_ms": 661.064,
}
OPENAI = {
    "completion_tokens": 35,
    "prompt_tokens": 253,
    "total_tokens": 288,
    "prompt_tokens_details": {"cached_tokens": 236},
}
IN_AND_OUT = {
    "input_tokens": 253,
    "output_tokens": 35,
    "total_tokens": 288,
    "input_tokens_details": {"cached_tokens": 236},
}
ANTHROPIC = {"cache_read_input_tokens": 236, "input_tokens": 17, "output_tokens": 35}
COUNTED = Tokens(prompt=17, cached=236, generated=35)
FAKE = {"timings": {"prompt_n": 1, "cache_n": 2, "predicted_n": 1_000_000}, "usage": ANTHROPIC}


def dump(tree: object) -> bytes:
    """JSON as llama-server writes it."""
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def event(tree: object, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dump(tree) + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    choice = {"finish_reason": "stop", "index": 0, "message": {"content": text}}
    return {"choices": [choice], "object": "chat.completion", **more}


def delta(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], "id": "chatcmpl-1", **more}


def response(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"output": [{"content": [{"type": "output_text", "text": text}]}], **more}


def usage(path: bytes, pieces: Iterable[bytes]) -> Tokens | None:
    """The usage in a response whose body arrives in these pieces."""
    edges = BodyEdges()
    for piece in pieces:
        edges.append(piece)
    return edges.tokens(path)


def streamed(*events: bytes) -> list[bytes]:
    return [*(chunk(each) for each in events), b"0\r\n\r\n"]


MESSAGE_START = event(
    {
        "type": "message_start",
        "message": {"content": [], "usage": {**ANTHROPIC, "output_tokens": 0}},
    },
    "message_start",
)
MESSAGE_END = (
    event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 35}}, "message_delta"),
    event({"type": "message_stop"}, "message_stop"),
)
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("path", "pieces"),
    [
        pytest.param(CHAT, [dump(chat(usage=OPENAI, id="1", timings=TIMINGS))], id="chat, whole"),
        pytest.param(CHAT, [dump(chat(usage=OPENAI, id="1"))], id="chat, whole, only usage"),
        pytest.param(
            CHAT,
            streamed(*[event(delta())] * 20, event(delta(timings=TIMINGS)), DONE),
            id="chat, streamed",
        ),
        pytest.param(
            CHAT,
            streamed(
                *[event(delta(timings={**TIMINGS, "predicted_n": n})) for n in range(35)],
                event(delta(usage=OPENAI, timings=TIMINGS)),
                DONE,
            ),
            id="chat, streamed with timings in each event",
        ),
        pytest.param(CHAT, streamed(event(delta(usage=OPENAI)), DONE), id="chat, usage streamed"),
        pytest.param(
            b"/completion",
            [dump({"content": "hello", "prompt": "x" * 9000, "timings": TIMINGS})],
            id="completion, whole",
        ),
        pytest.param(
            b"/completion",
            [dump({"content": "", "timings": TIMINGS, "completion_probabilities": [{"id": 1}]})],
            id="completion, whole, with more fields after",
        ),
        pytest.param(
            b"/infill",
            streamed(event({"content": "a"}), event({"content": "", "timings": TIMINGS})),
            id="infill, streamed",
        ),
        pytest.param(RESPONSES, [dump(response(usage=IN_AND_OUT))], id="responses, whole"),
        pytest.param(
            RESPONSES,
            streamed(
                event({"type": "response.created", "response": {"id": "1"}}, "response.created"),
                event({"response": response("x" * 9000, usage=IN_AND_OUT)}, "response.completed"),
            ),
            id="responses, streamed",
        ),
        pytest.param(
            MESSAGES, [dump({"content": [{"text": "hello"}], "usage": ANTHROPIC})], id="messages"
        ),
        pytest.param(
            MESSAGES,
            streamed(MESSAGE_START, *[event({})] * 20, *MESSAGE_END),
            id="messages, streamed",
        ),
        pytest.param(
            MESSAGES,
            [b"".join(streamed(MESSAGE_START, event({}), *MESSAGE_END))],
            id="messages, streamed in one piece",
        ),
    ],
)
def test_the_usage_of_each_path_is_counted(path: bytes, pieces: list[bytes]) -> None:
    assert usage(path, pieces) == COUNTED


def test_embeddings_and_rerankings_use_prompt_tokens_only() -> None:
    reported = {"prompt_tokens": 12, "total_tokens": 12}
    whole = {
        "model": 'a"b}',
        "object": "list",
        "usage": reported,
        "data": [{"embedding": [0.1] * 9}],
    }

    assert usage(EMBEDDINGS, [dump(whole)]) == Tokens(prompt=12)
    assert usage(b"/rerank", [chunk(dump(whole)), b"0\r\n\r\n"]) == Tokens(prompt=12)
    assert usage(b"/embedding", [dump([{"index": 0, "embedding": [[0.5]]}])]) is None


def test_a_missing_cache_count_is_0() -> None:
    timings = {"prompt_n": 17, "predicted_n": 35}
    reported = {"prompt_tokens": 17, "completion_tokens": 35, "total_tokens": 52}

    assert usage(CHAT, [dump(chat(timings=timings))]) == Tokens(17, 0, 35)
    assert usage(CHAT, [dump(chat(usage=reported))]) == Tokens(17, 0, 35)


@pytest.mark.parametrize(
    ("path", "pieces"),
    [
        pytest.param(CHAT, [dump(chat())], id="no usage"),
        pytest.param(CHAT, [b""], id="no body"),
        pytest.param(CHAT, [dump({"error": {"code": 400, "message": "no"}})], id="an error"),
        pytest.param(
            CHAT, [dump(chat(timings={**TIMINGS, "prompt_n": -1}))], id="a negative number"
        ),
        pytest.param(CHAT, [dump(chat(timings={**TIMINGS, "prompt_n": 1.5}))], id="a fraction"),
        pytest.param(CHAT, [dump(chat(timings={**TIMINGS, "prompt_n": True}))], id="a bool"),
        pytest.param(CHAT, [dump(chat(timings={}))], id="an empty object"),
        pytest.param(CHAT, [dump(chat(timings=[1, 2, 3]))], id="a list"),
        pytest.param(CHAT, [dump(chat(timings=TIMINGS))[:-1]], id="cut"),
        pytest.param(CHAT, [dump(chat(usage={"prompt_tokens": "9"}))], id="a string"),
        pytest.param(CHAT, [b'{"timings":' + b"[" * 4000], id="too deep for a parser"),
        pytest.param(CHAT, [b'\xff"timings":{"prompt_n":1,"predicted_n":1\xff}}'], id="no text"),
        pytest.param(EMBEDDINGS, [b'{"usage":{"prompt_tokens":1'], id="an embedding, cut"),
        pytest.param(MESSAGES, streamed(MESSAGE_START, event({})), id="messages without an end"),
    ],
)
def test_responses_without_valid_usage_count_as_none(path: bytes, pieces: list[bytes]) -> None:
    assert usage(path, pieces) is None


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES, EMBEDDINGS, b"/completion"])
def test_text_that_looks_like_usage_is_not_counted(path: bytes) -> None:
    fake = dump(FAKE).decode()
    for text in (
        fake,
        "\\" + fake,
        fake[1:],
        f'"{fake}',
        f"\n\ndata: {fake}\n\n",
        f"\r\n9\r\n{fake}",
    ):
        whole = [chat(text), response(text), {"content": [{"text": text}]}, {"content": text}]
        for tree in whole:
            assert usage(path, [dump(tree)]) is None
            assert usage(path, streamed(event(tree), DONE)) is None


@pytest.mark.parametrize("name", ['x"timings', 'x"usage', '\\"usage', '"usage'])
def test_a_key_that_only_ends_like_usage_is_not_counted(name: str) -> None:
    assert usage(CHAT, [dump({name: TIMINGS})]) is None
    assert usage(MESSAGES, [dump({name: ANTHROPIC})]) is None


def test_json_that_a_model_generated_is_not_counted() -> None:
    generated = {"content": [{"type": "tool_use", "input": FAKE}]}

    assert usage(MESSAGES, [dump(generated)]) is None
    assert usage(MESSAGES, [dump({**generated, "usage": ANTHROPIC})]) == COUNTED
    assert usage(CHAT, [dump({"choices": [FAKE]})]) is None
    assert usage(CHAT, [dump({"choices": FAKE})]) is None
    assert usage(RESPONSES, [dump({"output": [FAKE]})]) is None
    assert usage(EMBEDDINGS, [dump({"data": FAKE})]) is None


def test_pieces_with_a_gap_between_them_are_not_read_as_one() -> None:
    first = b'{"z":{"a":[{"usage":{"prompt_tokens":1,"completion_tokens":1,"s":"'

    assert usage(CHAT, [first, b'"}}],"c":"' + b"x" * 9000 + b'"}}']) is None


JSON_LIKE = st.lists(st.sampled_from([*'"\\{}:,\r\n0a', '"usage":{', '"timings":'])).map("".join)


@given(JSON_LIKE)
def test_no_text_changes_what_is_counted(text: str) -> None:
    cases: list[tuple[Any, Tokens | None]] = [
        ({}, None),
        ({"timings": TIMINGS}, COUNTED),
    ]
    for more, counted in cases:
        for tree in (chat(text, **more), delta(text, **more)):
            assert usage(CHAT, [dump(tree)]) == counted
            assert usage(CHAT, streamed(event(tree), DONE)) == counted


@given(st.lists(st.integers(1, 400), max_size=12))
def test_pieces_cut_anywhere_give_the_correct_usage_or_none(sizes: list[int]) -> None:
    body = b"".join(streamed(event(delta()), event(delta(timings=TIMINGS)), DONE))
    pieces, at = [], 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    pieces.append(body[at:])

    counted = usage(CHAT, pieces)
    assert counted in {COUNTED, None}
    if len(pieces) <= 8:
        assert counted == COUNTED


@given(st.integers(1, 300))
def test_chunks_split_differently_give_the_same_usage(size: int) -> None:
    body = event(delta()) + event(delta(timings=TIMINGS)) + DONE
    chunks = [chunk(body[at : at + size]) for at in range(0, len(body), size)]

    assert usage(CHAT, [b"".join([*chunks, b"0\r\n\r\n"])]) == COUNTED
