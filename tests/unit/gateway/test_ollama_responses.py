"""Responses of a server in Ollama's format."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.ollama.embeddings import EmbeddingsResponse
from slotkeeper.gateway.ollama.requests import Kind
from slotkeeper.gateway.ollama.responses import BadResponse, Durations, Generation
from slotkeeper.gateway.ollama.sse import MAX_EVENT, EventParser, EventTooLarge

AT = 1_700_000_000.25
TIME = "2023-11-14T22:13:20.250000Z"
DURATIONS = Durations(queued=0.5, total=2.0)
TIMINGS = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 10.5, "predicted_n": 2, "predicted_ms": 20}
END = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 2_000_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 10_500_000,
    "eval_count": 2,
    "eval_duration": 20_000_000,
}


def delta(finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return json.dumps({"choices": [choice], **({"timings": TIMINGS} if finish else {})}).encode()


def generation(kind: Kind = Kind.CHAT) -> Generation:
    return Generation(kind, "m")


def message(content: str = "", done: bool = False, **fields: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **fields}
    return {"model": "m", "created_at": TIME, "message": said, "done": done}


def test_a_stream_of_a_chat() -> None:
    chat = generation()
    lines = [
        line
        for event in (
            delta(role="assistant", content=None),
            delta(reasoning_content="Hm"),
            delta(content="Hel"),
            delta(content="lo"),
            delta("stop"),
            b"[DONE]",
        )
        for line in chat.event(event, AT)
    ]
    lines += chat.last(DURATIONS, AT)

    assert lines == [
        message(thinking="Hm"),
        message("Hel"),
        message("lo"),
        {**message(), **END},
    ]


def test_a_whole_chat() -> None:
    whole = {
        "choices": [{"finish_reason": "length", "message": {"role": "assistant", "content": "Hi"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
        "timings": TIMINGS,
    }
    response = generation().whole(json.dumps(whole).encode(), DURATIONS, AT)

    end = {**END, "done_reason": "length", "prompt_eval_count": 9, "eval_count": 1}
    assert response == {**message("Hi"), **end}


def test_a_generated_text() -> None:
    text = generation(Kind.GENERATE)
    shared = {"model": "m", "created_at": TIME}
    event = json.dumps({"choices": [{"text": "Hi", "finish_reason": "stop"}]}).encode()

    assert text.event(event, AT) == [{**shared, "response": "Hi", "done": False}]
    [last] = text.last(DURATIONS, AT)
    assert (last["response"], last["done"], last["eval_count"]) == ("", True, 0)
    infill = generation(Kind.GENERATE)
    assert infill.event(b'{"content":"a","stop":false}', AT)[0]["response"] == "a"
    assert not infill.finished
    infill.event(b'{"content":"","stop":true,"stop_type":"limit"}', AT)
    assert infill.last(DURATIONS, AT)[0]["done_reason"] == "length"
    assert generation().loaded(AT) == {**message(done=True), "done_reason": "load"}


def test_parts_of_tool_calls_are_sent_as_complete_calls() -> None:
    def part(index: int, arguments: str, name: str | None = None) -> bytes:
        function = {"arguments": arguments, **({"name": name} if name else {})}
        return delta(tool_calls=[{"index": index, "function": function}])

    chat = generation()
    lines = [
        chat.event(event, AT)
        for event in (
            part(0, "", "f"),
            part(0, '{"a":'),
            part(0, "1}"),
            part(1, "", "g"),
            delta("tool_calls"),
        )
    ]

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": arguments}}

    assert lines == [[], [], [], [message(tool_calls=[call("f", a=1)])], []]
    assert chat.last(DURATIONS, AT) == [message(tool_calls=[call("g")]), {**message(), **END}]


@pytest.mark.parametrize("finish", ["length", "tool_calls"])
def test_a_tool_call_that_is_cut_off_is_left_out_only_at_the_limit(finish: str) -> None:
    chat = generation()
    chat.event(delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]), AT)
    chat.event(delta(finish), AT)

    if finish == "length":
        [last] = chat.last(DURATIONS, AT)
        assert last["done_reason"] == "length"
    else:
        with pytest.raises(BadResponse, match="the arguments of f are not JSON"):
            chat.last(DURATIONS, AT)


def test_log_probabilities() -> None:
    token = {"id": 1, "token": "a", "bytes": [97], "logprob": -0.1}
    entry = {**token, "top_logprobs": [token]}
    choice = {"delta": {"content": "a"}, "logprobs": {"content": [entry]}}
    [line] = generation().event(json.dumps({"choices": [choice]}).encode(), AT)

    kept = {"token": "a", "logprob": -0.1, "bytes": [97]}
    assert line["logprobs"] == [{**kept, "top_logprobs": [kept]}]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b'{"error":{"message":"context is full"}}', "context is full"),
        (b'{"error":"broken"}', "broken"),
        (b"{", "invalid JSON"),
        (b"[" * 100 + b"]" * 100, "invalid JSON"),
        (b'{"a":1e999}', "invalid JSON"),
    ],
)
def test_errors_of_a_server(event: bytes, message: str) -> None:
    with pytest.raises(BadResponse, match=message):
        generation().event(event, AT)


@pytest.mark.parametrize(
    "event",
    [
        b"null",
        b"[]",
        b'{"choices":7}',
        b'{"choices":[7]}',
        b'{"choices":[{"delta":7,"finish_reason":7}]}',
        b'{"choices":[{"delta":{"content":7,"tool_calls":[7,{"function":7}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"a","function":{"name":7}}]}}]}',
        b'{"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"prompt_ms":"a","prompt_n":[]}}',
        b'{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":"a"}}',
        b'{"choices":[{"logprobs":{"content":[{"top_logprobs":[7]}]}}]}',
    ],
)
def test_nonsense_of_a_server_counts_as_missing(event: bytes) -> None:
    chat = generation()
    json.dumps(chat.event(event, AT))
    if chat.finished:
        assert chat.last(DURATIONS, AT)[-1]["eval_count"] == 0
    else:
        with pytest.raises(BadResponse, match="ended its response early"):
            chat.last(DURATIONS, AT)


@given(st.lists(st.integers(1, 40)), st.sampled_from([b"\n", b"\r\n"]))
def test_events_arrive_in_any_pieces(sizes: list[int], newline: bytes) -> None:
    lines = (b": queued", b"", b"data: a", b"", b"event: x", b"data:b", b"data: c", b"", b"data: d")
    stream = newline.join(lines) + newline
    parser = EventParser()
    found = []
    for size in [*sizes, len(stream)]:
        found += parser.feed(stream[:size])
        stream = stream[size:]

    assert found == [b"a", b"b\nc"]
    assert parser.comments == 1


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 65_530 + b"\n"])
def test_an_endless_event_is_rejected(piece: bytes) -> None:
    parser = EventParser()

    def feed() -> None:
        for _ in range(MAX_EVENT // len(piece) + 2):
            parser.feed(piece)

    with pytest.raises(EventTooLarge):
        feed()


EMBEDDINGS = {
    "model": 'say "embedding":[1]',
    "object": "list",
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
    "data": [
        {"embedding": [0.25, -1e-05], "index": 0, "object": "embedding"},
        {"embedding": [], "index": 1},
        {"index": 2, "embedding": [3]},
    ],
}


@given(st.lists(st.integers(1, 60)), st.sampled_from([None, 1]))
def test_embeddings_arrive_in_any_pieces(sizes: list[int], indent: int | None) -> None:
    data = json.dumps(EMBEDDINGS, indent=indent).encode()
    response = EmbeddingsResponse(Kind.EMBED, "m")
    sent = b""
    for size in [*sizes, len(data)]:
        sent += response.convert(data[:size])
        data = data[size:]
    sent += response.end(DURATIONS)

    assert json.loads(sent) == {
        "model": "m",
        "embeddings": [[0.25, -1e-05], [], [3]],
        "total_duration": 2_000_000_000,
        "load_duration": 500_000_000,
        "prompt_eval_count": 5,
    }


def test_one_embedding() -> None:
    response = EmbeddingsResponse(Kind.EMBEDDINGS, "m")
    sent = response.convert(b'{"data":[{"embedding":[1,2]}]}') + response.end(DURATIONS)

    assert json.loads(sent) == {"embedding": [1, 2]}
    with pytest.raises(BadResponse, match="several"):
        response.convert(b'{"embedding":[1]}')


@pytest.mark.parametrize(
    "data",
    [
        b'{"data":[]}',
        b'{"data":[{"embedding":[1',
        b'{"data":[{"embedding":["a"]}]}',
        b'{"data":[{"embedding":[[1]]}]}',
        b'{"data":[{"embedding":"AAAA"}]}',
        b"x" * 100_000,
    ],
)
def test_what_is_no_embeddings_is_an_error(data: bytes) -> None:
    response = EmbeddingsResponse(Kind.EMBED, "m")

    def convert() -> None:
        response.convert(data)
        response.end(DURATIONS)

    with pytest.raises(BadResponse):
        convert()
