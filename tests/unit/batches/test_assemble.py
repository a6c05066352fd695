"""The response of a stream is the one that a request without `stream` has."""

import json
from typing import Any

import pytest

from slotkeeper.batches.assemble import as_stream, assemble
from slotkeeper.batches.client import Interrupted, Reply

CHAT = "/v1/chat/completions"


def stream(*events: Any, ending: str = "data: [DONE]\n\n") -> Reply:
    text = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    return Reply(200, (": queued, position 1\n\n" + text + ending).encode(), is_stream=True)


def chat(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "a", "object": "chat.completion.chunk", "model": "one", "choices": [choice]}


def body(endpoint: str, reply: Reply) -> Any:
    found = assemble(endpoint, reply)
    assert found.status == 200
    return json.loads(found.body)


def test_texts_and_several_choices_are_joined() -> None:
    found = body(
        CHAT,
        stream(
            chat(role="assistant", content=None),
            chat(1, role="assistant", content="x"),
            chat(reasoning_content="think"),
            chat(content="Hel"),
            chat(1, "length", content="y"),
            chat(content="lo\u2028", finish="stop"),
            {"id": "a", "choices": [], "usage": {"total_tokens": 3}, "timings": {"a": 1}},
        ),
    )

    assert found["object"] == "chat.completion"
    assert (found["usage"], found["timings"]) == ({"total_tokens": 3}, {"a": 1})
    assert found["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "Hello\u2028",
                "reasoning_content": "think",
            },
        },
        {
            "index": 1,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": "xy"},
        },
    ]


def test_tool_calls_are_joined() -> None:
    def call(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **fields.pop("function", {})}
        return {"index": index, "function": function, **fields}

    found = body(
        CHAT,
        stream(
            chat(tool_calls=[call(0, "", id="c0", type="function", function={"name": "f"})]),
            chat(tool_calls=[call(0, '{"a":')]),
            chat(tool_calls=[call(1, "{}", id="c1", type="function", function={"name": "g"})]),
            chat(tool_calls=[call(0, "1}")], finish="tool_calls"),
        ),
    )

    [choice] = found["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_completions_with_log_probabilities_are_joined() -> None:
    def part(text: str, token: int, finish: str | None = None) -> dict[str, Any]:
        logprobs = {"content": [{"token": token}]}
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return {"object": "text_completion", "choices": [choice]}

    found = body("/v1/completions", stream(part("a", 1), part("b", 2, "stop")))

    assert found == {
        "object": "text_completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "text": "ab",
                "logprobs": {"content": [{"token": 1}, {"token": 2}]},
            }
        ],
    }


def test_the_last_event_of_a_response_contains_it() -> None:
    response = {"object": "response", "output": []}
    events = stream(
        {"type": "response.created"}, {"type": "response.completed", "response": response}
    )

    assert body("/v1/responses", events) == response


def test_a_response_that_is_no_stream_is_unchanged() -> None:
    reply = Reply(200, b'{"object": "chat.completion"}')

    assert assemble(CHAT, reply) is reply
    assert as_stream("/v1/embeddings", {"input": "a"}) == {"input": "a"}
    assert as_stream(CHAT, {"a": 1}) == {
        "a": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": "preempted", "type": "unavailable_error"}, 503),
        ({"code": "queue_full", "type": "rate_limit_error"}, 429),
        ({"code": "replica_failed", "type": "server_error"}, 502),
        ({"code": "server_timeout", "type": "server_error"}, 504),
        ({"code": "internal_error", "type": "server_error"}, 500),
        ({"code": 400, "type": "invalid_request_error"}, 400),
        ({"code": 7, "type": "invalid_request_error"}, 400),
        ({"type": ["a"]}, 500),
        ("failed", 500),
    ],
)
def test_an_error_event_is_an_error_response(error: Any, status: int) -> None:
    found = assemble(CHAT, stream(chat(content="a"), {"error": error}))

    assert found.status == status
    assert json.loads(found.body) == {"error": error}


@pytest.mark.parametrize(
    ("endpoint", "reply"),
    [
        (CHAT, stream()),
        (CHAT, stream(chat(content="a"))),
        (CHAT, stream(chat(content="a", finish="stop"), chat(1, content="b"))),
        (CHAT, stream({"choices": "a"}, {"choices": ["a"]}, 7)),
        (CHAT, Reply(200, b"data: {\n\n", is_stream=True)),
        ("/v1/responses", stream({"type": "response.created"})),
        ("/v1/responses", stream({"type": "response.completed", "response": 7})),
    ],
)
def test_an_incomplete_stream_is_interrupted(endpoint: str, reply: Reply) -> None:
    with pytest.raises(Interrupted):
        assemble(endpoint, reply)
