"""Ollama's library, whose API the gateway translates."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client_features import proves
from client_servers import ALIAS, AT_ZERO, CHAT, EMBEDDINGS, TOOLS
from client_stack import BROKEN, Address

ollama = pytest.importorskip("ollama", reason="missing: ollama. Install it with: make clients")

USER: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}
FEW: Any = {"num_predict": 8, "temperature": 0.7, "num_ctx": 4096, "stop": ["\x00"]}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(10_000)).decode()


@pytest.fixture
def client(gateway: Address) -> Iterator[Any]:
    client = ollama.Client(gateway.url, headers={"Authorization": f"Bearer {gateway.key}"})
    yield client
    client._client.close()


@proves("models")
def test_models_are_listed_and_described(client: Any) -> None:
    models = {model.model: model for model in client.list().models}
    running = {model.model: model for model in client.ps().models}
    shown = client.show(CHAT)

    assert {f"{name}:latest" for name in (ALIAS, CHAT, EMBEDDINGS, AT_ZERO)} <= models.keys()
    assert models[f"{CHAT}:latest"].details.format == "gguf"
    assert models[f"{CHAT}:latest"].size > 100_000
    assert running[f"{CHAT}:latest"].context_length == 2048
    assert shown.modelinfo["general.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert client.show(f"{ALIAS}:latest").details.format == "gguf"


@proves("chat", "token counts")
@pytest.mark.parametrize("model", [ALIAS, f"{CHAT}:latest"])
def test_a_chat_is_completed(client: Any, model: str) -> None:
    response = client.chat(model=model, messages=USER, options=FEW, keep_alive="5m")

    assert (response.model, response.done) == (model, True)
    assert response.done_reason in {"stop", "length"}
    assert response.message.role == "assistant"
    assert response.prompt_eval_count > 10
    assert 0 < response.eval_count <= 8
    assert response.total_duration > response.eval_duration > 0


@proves("streaming", "token counts")
def test_a_chat_is_streamed(client: Any) -> None:
    parts = list(client.chat(model=CHAT, messages=USER, options=FEW, stream=True))

    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert any(part.message.content for part in parts)
    assert parts[-1].eval_count <= 8
    assert parts[-1].prompt_eval_count > 10


def test_a_text_is_generated(client: Any) -> None:
    whole = client.generate(model=CHAT, prompt="Hello", system="You are kind.", options=FEW)
    raw = client.generate(model=CHAT, prompt="Hello", raw=True, options=FEW)
    parts = list(client.generate(model=CHAT, prompt="Hello", options=FEW, stream=True))

    assert whole.eval_count <= 8
    assert whole.prompt_eval_count > raw.prompt_eval_count > 0
    assert parts[-1].done
    assert client.generate(model=CHAT, prompt="").done_reason == "load"


@proves("tools")
def test_a_tool_is_called(client: Any) -> None:
    request = {
        "model": TOOLS,
        "messages": USER,
        "tools": [TOOL],
        "options": {"num_predict": 200},
    }
    whole = client.chat(**request).message
    streamed = [
        call
        for part in client.chat(**request, stream=True)
        for call in part.message.tool_calls or ()
    ]

    for call in (whole.tool_calls[0], streamed[0]):
        assert call.function.name == "answer"
        assert call.function.arguments["sure"] in {True, False}
    result = [*USER, whole, {"role": "tool", "tool_name": "answer", "content": "yes"}]
    assert client.chat(model=TOOLS, messages=result, options=FEW).done


@proves("JSON schema")
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_follows_a_schema(client: Any, stream: bool) -> None:
    response = client.chat(
        model=TOOLS, messages=USER, format=SCHEMA, options={"num_predict": 200}, stream=stream
    )
    parts = list(response) if stream else [response]

    text = "".join(part.message.content or "" for part in parts)
    assert json.loads(text)["sure"] in {True, False}


@proves("embeddings")
def test_texts_are_embedded(client: Any) -> None:
    response = client.embed(model=EMBEDDINGS, input=["Hello", "World"])
    single = client.embeddings(model=EMBEDDINGS, prompt="Hello")

    assert [len(each) for each in response.embeddings] == [64, 64]
    assert response.prompt_eval_count > 2
    # Sums of floating-point numbers depend on what else is in the batch.
    assert list(single.embedding) == pytest.approx(list(response.embeddings[0]), rel=1e-4, abs=1e-6)


@proves("errors")
def test_errors_are_reported(client: Any, gateway: Address) -> None:
    wrong = ollama.Client(gateway.url, headers={"Authorization": "Bearer wrong"})
    image = [{"role": "user", "content": "What is this?", "images": [PIXEL]}]
    cases: list[tuple[Callable[[], Any], int, str]] = [
        (lambda: client.chat(model="other", messages=USER), 404, "the model 'other' does not"),
        (wrong.list, 401, "invalid API key"),
        (lambda: client.pull("llama3"), 501, "each is a LlamaServer"),
        (lambda: client.embed(model=CHAT, input="Hello"), 501, "does not support embeddings"),
        (lambda: client.chat(model=CHAT, messages=image), 500, "image input is not supported"),
        (
            lambda: client.chat(model=CHAT, messages=[{"role": "user", "content": "x" * 5000}]),
            400,
            "exceeds the available context size",
        ),
    ]
    for request, status, message in cases:
        with pytest.raises(ollama.ResponseError) as raised:
            request()
        assert raised.value.status_code == status, raised.value
        assert message in raised.value.error
    wrong._client.close()


@proves("errors in a stream")
@pytest.mark.usefixtures("broken")
def test_a_stream_whose_server_fails_raises_an_error(client: Any) -> None:
    stream = client.chat(model=BROKEN, messages=USER, stream=True)

    assert next(stream).message.content == "Hel"
    with pytest.raises(ollama.ResponseError, match="the server of model broken failed"):
        next(stream)


@proves("wake from zero")
@pytest.mark.usefixtures("asleep")
def test_a_stream_wakes_a_model_at_zero(client: Any, gateway: Address) -> None:
    parts = list(client.chat(model=AT_ZERO, messages=USER, options=FEW, stream=True))

    assert parts[-1].done
    if gateway.stack:
        # Parts without content were sent meanwhile.
        assert parts[0].message.content == ""
        assert parts[-1].load_duration > 400_000_000


@proves("cancel")
def test_a_closed_stream_ends_the_request(client: Any, wait_idle: Callable[[], None]) -> None:
    stream = client.generate(
        model=CHAT, prompt="Hello", raw=True, options={"num_predict": 1500}, stream=True
    )
    next(stream)
    stream.close()

    wait_idle()
