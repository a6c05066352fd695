"""LiteLLM, with the three APIs of the gateway."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from client_features import proves
from client_servers import ALIAS, AT_ZERO, CHAT, EMBEDDINGS, RERANK, TOOLS
from client_stack import Address

# Otherwise it downloads prices, for 30 seconds if there is no Internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
litellm = pytest.importorskip("litellm", reason="missing: litellm. Install it with: make clients")

USER: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}
PREFIXES = ("openai", "anthropic", "ollama_chat")


@pytest.fixture(params=PREFIXES)
def route(gateway: Address, request: Any) -> dict[str, Any]:
    """The arguments that select an API; the model's name follows its prefix."""
    url = f"{gateway.url}/v1" if request.param == "openai" else gateway.url
    return {"prefix": request.param, "api_base": url, "api_key": gateway.key, "num_retries": 0}


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """Its logging needs a loop, also for requests that block."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def complete(route: dict[str, Any], model: str, **request: Any) -> Any:
    arguments = {name: value for name, value in route.items() if name != "prefix"}
    return litellm.completion(
        model=f"{route['prefix']}/{model}", messages=USER, timeout=60, **arguments, **request
    )


@proves("chat", "token counts")
def test_a_chat_is_completed(route: dict[str, Any]) -> None:
    response = complete(route, ALIAS, max_tokens=4)

    assert response.choices[0].message.role == "assistant"
    assert 0 < response.usage.completion_tokens <= 4
    assert response.usage.prompt_tokens > 10


@proves("streaming")
def test_a_chat_is_streamed(route: dict[str, Any]) -> None:
    chunks = list(complete(route, CHAT, max_tokens=8, stream=True))

    assert any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


@proves("tools")
def test_a_tool_is_called(route: dict[str, Any]) -> None:
    response = complete(route, TOOLS, max_tokens=200, tools=[TOOL])

    assert response.choices[0].message.tool_calls[0].function.name == "answer"


@proves("JSON schema")
def test_a_response_follows_a_schema(route: dict[str, Any]) -> None:
    if route["prefix"] == "anthropic":
        pytest.skip("LiteLLM turns a schema into a tool for Anthropic's API")
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    response = complete(route, TOOLS, max_tokens=200, response_format=form)

    assert "sure" in response.choices[0].message.content


@proves("embeddings")
@pytest.mark.parametrize("prefix", ["openai", "ollama"])
def test_texts_are_embedded(gateway: Address, prefix: str) -> None:
    url = f"{gateway.url}/v1" if prefix == "openai" else gateway.url
    response = litellm.embedding(
        model=f"{prefix}/{EMBEDDINGS}",
        input=["Hello", "World"],
        api_base=url,
        api_key=gateway.key,
        # It requests them in no format otherwise, which llama-server rejects.
        **({"encoding_format": "float"} if prefix == "openai" else {}),
    )

    assert [len(each["embedding"]) for each in response.data] == [64, 64]


@proves("reranking")
def test_documents_are_reranked(gateway: Address) -> None:
    response = litellm.rerank(
        model=f"jina_ai/{RERANK}",
        query="Hello",
        documents=["Hello", "World"],
        api_base=f"{gateway.url}/v1/rerank",
        api_key=gateway.key,
    )

    assert {each["index"] for each in response.results} == {0, 1}


@proves("errors")
def test_errors_have_the_librarys_types(route: dict[str, Any]) -> None:
    with pytest.raises(litellm.AuthenticationError):
        complete({**route, "api_key": "wrong"}, CHAT)
    with pytest.raises(litellm.NotFoundError, match="the model 'other' does not exist"):
        complete(route, "other", max_tokens=4)


@proves("wake from zero")
@pytest.mark.usefixtures("asleep")
def test_a_stream_wakes_a_model_at_zero(route: dict[str, Any]) -> None:
    chunks = list(complete(route, AT_ZERO, max_tokens=4, stream=True))

    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
