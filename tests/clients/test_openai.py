"""OpenAI's library."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client_features import proves
from client_servers import ALIAS, AT_ZERO, CHAT, EMBEDDINGS, TOOLS
from client_stack import BROKEN, Address

openai = pytest.importorskip("openai", reason="missing: openai. Install it with: make clients")

USER: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.fixture
def client(gateway: Address) -> Iterator[Any]:
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=60
    ) as client:
        yield client


@proves("models")
def test_models_are_listed_with_what_their_servers_report(client: Any) -> None:
    models = {model.id: model for model in client.models.list()}

    assert {ALIAS, CHAT, EMBEDDINGS, AT_ZERO} <= models.keys()
    assert models[CHAT].meta["n_ctx"] == 2048
    assert client.models.retrieve(ALIAS).id == ALIAS


@proves("chat", "token counts")
def test_a_chat_is_completed(client: Any) -> None:
    response = client.chat.completions.create(model=ALIAS, messages=USER, max_tokens=4)

    assert response.choices[0].message.role == "assistant"
    assert response.usage.completion_tokens <= 4
    assert response.usage.prompt_tokens > 10


@proves("streaming", "token counts")
def test_a_chat_is_streamed(client: Any) -> None:
    chunks = list(
        client.chat.completions.create(
            model=CHAT,
            messages=USER,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert len(chunks) > 3
    assert chunks[-1].usage.completion_tokens <= 8


def test_a_text_is_completed(client: Any) -> None:
    whole = client.completions.create(model=CHAT, prompt="Hello", max_tokens=4)
    chunks = list(client.completions.create(model=CHAT, prompt="Hello", max_tokens=4, stream=True))

    assert whole.usage.completion_tokens <= 4
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


def test_a_response_is_created(client: Any) -> None:
    whole = client.responses.create(model=CHAT, input="Hello", max_output_tokens=4)
    events = list(
        client.responses.create(model=CHAT, input="Hello", max_output_tokens=4, stream=True)
    )

    assert whole.usage.output_tokens <= 4
    assert events[-1].type == "response.completed"


@proves("tools")
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_a_tool_is_called(client: Any, choice: str) -> None:
    request = {
        "model": TOOLS,
        "messages": USER,
        "tools": [TOOL],
        "tool_choice": choice,
        "max_tokens": 200,
    }
    # The demo model goes on to call the tool until the last token.
    call, *_ = client.chat.completions.create(**request).choices[0].message.tool_calls
    deltas = [
        part
        for chunk in client.chat.completions.create(**request, stream=True)
        for part in chunk.choices[0].delta.tool_calls or ()
        if part.index == 0
    ]

    assert call.function.name == deltas[0].function.name == "answer"
    for arguments in (call.function.arguments, "".join(each.function.arguments for each in deltas)):
        assert json.loads(arguments)["sure"] in {True, False}
    result: Any = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "yes"},
    ]
    assert client.chat.completions.create(model=TOOLS, messages=result, max_tokens=4).choices


@proves("JSON schema")
def test_a_response_follows_a_schema(client: Any) -> None:
    response = client.chat.completions.create(
        model=TOOLS, messages=USER, response_format=FORMAT, max_tokens=200
    )

    assert json.loads(response.choices[0].message.content)["sure"] in {True, False}


@proves("embeddings")
def test_texts_are_embedded(client: Any) -> None:
    # The library requests base64, which it decodes.
    response = client.embeddings.create(model=EMBEDDINGS, input=["Hello", "World"])

    assert [len(each.embedding) for each in response.data] == [64, 64]
    assert response.usage.prompt_tokens > 2


@proves("errors")
def test_errors_have_the_librarys_types(client: Any, gateway: Address) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="other", messages=USER)
    with pytest.raises(openai.AuthenticationError) as wrong:
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages="none")
    with pytest.raises(openai.NotFoundError) as absent:
        client.moderations.create(input="Hello")
    with pytest.raises(openai.InternalServerError) as no_audio:
        client.audio.transcriptions.create(model=CHAT, file=("a.wav", b"RIFF"))

    assert unknown.value.code == "model_not_found"
    assert wrong.value.code == "invalid_api_key"
    assert absent.value.code == "not_found"
    assert "audio" in str(no_audio.value)
    assert gateway.key not in str(wrong.value)


@proves("errors in a stream")
@pytest.mark.usefixtures("broken")
def test_a_stream_whose_server_fails_raises_an_error(client: Any) -> None:
    stream = client.chat.completions.create(model=BROKEN, messages=USER, stream=True)

    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIConnectionError):
        next(stream)


@proves("wake from zero")
@pytest.mark.usefixtures("asleep")
def test_a_stream_wakes_a_model_at_zero(client: Any) -> None:
    chunks = list(
        client.chat.completions.create(model=AT_ZERO, messages=USER, max_tokens=4, stream=True)
    )

    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


@proves("cancel")
def test_a_closed_stream_ends_the_request(client: Any, wait_idle: Callable[[], None]) -> None:
    stream = client.chat.completions.create(
        model=CHAT,
        messages=USER,
        max_tokens=1500,
        stream=True,
    )
    next(stream)
    stream.close()

    wait_idle()
    assert client.chat.completions.create(model=CHAT, messages=USER, max_tokens=1).choices
