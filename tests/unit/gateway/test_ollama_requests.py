"""Requests of Ollama's API, as they are sent to a server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from slotkeeper.gateway.ollama import requests
from slotkeeper.gateway.ollama.body import Body, read_small
from slotkeeper.gateway.ollama.requests import Kind, Translated
from slotkeeper.wire.errors import HttpError

USER = {"role": "user", "content": "Hello"}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
TRANSLATE = {
    "chat": requests.chat,
    "generate": requests.generate,
    "embed": requests.embed,
    "embeddings": requests.embeddings,
}


def translate(name: str, **tree: Any) -> Translated:
    return TRANSLATE[name](Body(tree), "m")


def test_a_chat_is_a_chat_completion() -> None:
    translated = translate("chat", model="m:latest", messages=[USER])

    assert translated == Translated(
        Kind.CHAT,
        b"/v1/chat/completions",
        {"model": "m", "messages": [USER], **STREAM},
        stream=True,
    )
    assert translate("chat", messages=[USER], stream=False).tree["stream"] is False


def test_options_are_sampling_parameters() -> None:
    options = {
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40.0,
        "min_p": 0.05,
        "typical_p": 1,
        "seed": 7,
        "num_predict": -2,
        "num_keep": 4,
        "repeat_last_n": 64,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "mirostat": 1,
        "mirostat_tau": 5,
        "mirostat_eta": 0.1,
        "stop": "END",
        # Of loading a model, unknown, or null.
        "num_ctx": "many",
        "num_gpu": 1,
        "colour": {},
        "logit_bias": [[1, 100]],
        "tfs_z": None,
    }
    tree = translate("chat", messages=[USER], options=options, stream=False).tree

    assert tree == {
        "model": "m",
        "messages": [USER],
        "stream": False,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 1,
        "seed": 7,
        "max_tokens": -1,
        "n_keep": 4,
        "repeat_last_n": 64,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "mirostat": 1,
        "mirostat_tau": 5,
        "mirostat_eta": 0.1,
        "stop": ["END"],
    }


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "format", "schema": {"type": "object"}},
                }
            },
        ),
        ({"format": ""}, {}),
        ({"think": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"think": "low"},
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"tools": [{"type": "function"}]}, {"tools": [{"type": "function"}]}),
        ({"tools": [], "keep_alive": "5m", "truncate": False, "options": None}, {}),
    ],
)
def test_other_fields_of_a_chat(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    tree = translate("chat", messages=[USER], **fields).tree

    assert tree == {"model": "m", "messages": [USER], **STREAM, **sent}


def test_images_are_parts_of_a_message() -> None:
    images = ["iVBORw0KGgoAAAA", "/9j/4AAQ", "AAAA"]
    [message] = translate("chat", messages=[{**USER, "images": images}]).tree["messages"]

    assert message["content"][0] == {"type": "text", "text": "Hello"}
    assert [part["image_url"]["url"] for part in message["content"][1:]] == [
        "data:image/png;base64,iVBORw0KGgoAAAA",
        "data:image/jpeg;base64,/9j/4AAQ",
        "data:image/png;base64,AAAA",
    ]


def test_results_of_tools_refer_to_their_calls() -> None:
    def call(name: str, **fields: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"n": name}}, **fields}

    messages = [
        {"role": "assistant", "tool_calls": [call("a"), call("b", id="x")], "thinking": "Hm"},
        {"role": "tool", "content": "2", "tool_name": "b"},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "3", "tool_call_id": "y"},
        {"role": "tool", "content": "4"},
    ]
    assistant, *results = translate("chat", messages=messages).tree["messages"]

    assert assistant["content"] == ""
    assert assistant["reasoning_content"] == "Hm"
    assert [each["id"] for each in assistant["tool_calls"]] == ["call_0", "x"]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"n": "a"}
    assert [each["tool_call_id"] for each in results] == ["x", "call_0", "y", "call_1"]
    assert results[0]["name"] == "b"


def test_a_prompt_is_a_message_or_raw() -> None:
    templated = translate("generate", prompt="Hello", system="Be kind", stream=False)
    raw = translate("generate", prompt="Hello", raw=True, format="json", stream=False)
    middle = translate("generate", prompt="a", suffix="c", options={"num_predict": 5}, stream=False)

    system = {"role": "system", "content": "Be kind"}
    assert templated.tree == {"model": "m", "messages": [system, USER], "stream": False}
    assert (raw.path, raw.kind) == (b"/v1/completions", Kind.GENERATE)
    schema = {"type": "object"}
    assert raw.tree == {"model": "m", "prompt": "Hello", "json_schema": schema, "stream": False}
    assert middle.path == b"/infill"
    assert middle.tree == {
        "model": "m",
        "input_prefix": "a",
        "input_suffix": "c",
        "n_predict": 5,
        "stream": False,
    }


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_request_without_a_prompt_waits_for_a_replica(name: str) -> None:
    translated = translate(name, keep_alive=-1)

    assert (translated.path, translated.load) == (b"/tokenize", True)
    with pytest.raises(HttpError, match="cannot be unloaded"):
        translate(name, keep_alive=0)


def test_texts_are_embedded() -> None:
    embed = translate("embed", input="a", truncate=True)
    tree = {"model": "m", "input": ["a"], "encoding_format": "float"}

    assert embed == Translated(Kind.EMBED, b"/v1/embeddings", tree)
    assert translate("embeddings", prompt="a").tree == tree
    assert translate("embed", input=["a", "b"]).tree["input"] == ["a", "b"]


def test_a_missing_model_is_the_default_and_older_clients_call_it_name() -> None:
    assert requests.model_of(Body({})) is None
    assert requests.model_of(Body({"model": ""})) is None
    assert requests.model_of(Body({"name": "m"})) == "m"


WRONG = [None, True, 1, 1.5, "x", [], [1], {}, {"a": 1}, "1" * 400]
FIELDS = {
    "chat": ("messages", "stream", "options", "format", "think", "tools", "logprobs"),
    "generate": (
        *("prompt", "system", "suffix", "images", "raw", "stream", "options", "context"),
        *("template", "format", "think", "width", "keep_alive"),
    ),
    "embed": ("input", "dimensions"),
    "embeddings": ("prompt",),
}
OPTIONS = ("num_predict", "seed", "top_k", "temperature", "top_p", "stop", "mirostat")
MESSAGE = ("role", "content", "images", "tool_calls", "thinking", "tool_name", "tool_call_id")


@contextmanager
def suppress_expected() -> Iterator[None]:
    """Suppress an error that a client is to see, and no other."""
    try:
        yield
    except HttpError as error:
        if error.status != 400 or error.code not in {"invalid_field", "not_supported"}:
            raise


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_each_field_may_have_any_type(value: Any) -> None:
    """A value of another type results in an error with the field's name, or is not sent."""
    bodies: list[tuple[str, dict[str, Any]]] = []
    for name, fields in FIELDS.items():
        valid = {"messages": [USER], "prompt": "a", "input": "a"}
        bodies += [(name, {**valid, field: value}) for field in fields]
    for field in OPTIONS:
        bodies.append(("chat", {"messages": [USER], "options": {field: value}}))
    for field in MESSAGE:
        bodies.append(("chat", {"messages": [{**USER, field: value}]}))
        bodies.append(("chat", {"messages": [{"role": "tool", field: value}]}))
    for field in ("function", "id"):
        call = {"function": {"name": "f"}, field: value}
        bodies.append(("chat", {"messages": [{**USER, "tool_calls": [call]}]}))
    for name, tree in bodies:
        with suppress_expected():
            json.dumps(translate(name, **tree).tree)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("chat", {"messages": "Hello"}, "messages must be a list of objects"),
        ("chat", {"messages": [{}]}, "must have a role"),
        ("chat", {"messages": [{"role": 1}]}, r"messages\[0\]\.role must be a string"),
        ("chat", {"messages": [USER], "options": []}, "options must be an object"),
        (
            "chat",
            {"messages": [USER], "options": {"top_k": 1.5}},
            r"options\.top_k must be a whole number",
        ),
        (
            "chat",
            {"messages": [USER], "options": {"temperature": True}},
            r"options\.temperature must be a number",
        ),
        ("chat", {"messages": [USER], "format": "xml"}, "format must be json"),
        ("chat", {"messages": [USER], "think": "much"}, "think must be true"),
        ("generate", {"prompt": "a", "context": [1]}, "context is not supported"),
        ("generate", {"prompt": "a", "template": "{{ x }}"}, "template is not supported"),
        ("generate", {"prompt": "a", "raw": True, "system": "b"}, "system is not supported"),
        ("embed", {}, "input must be a string"),
        ("embed", {"input": []}, "input must not be empty"),
        ("embed", {"input": "a", "dimensions": 8}, "dimensions is not supported"),
    ],
)
def test_errors_name_the_field(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HttpError, match=message) as raised:
        translate(name, **fields)

    assert raised.value.status == 400


def test_a_number_beyond_64_bits_is_rejected() -> None:
    body = read_small(b'{"messages":[{"role":"user"}],"options":{"seed":%s}}' % (b"9" * 5000))

    with pytest.raises(HttpError, match="must be a whole number"):
        requests.chat(body, "m")
