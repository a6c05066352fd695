"""The requests of Open WebUI, as its backend sends them: with aiohttp, and fields of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from client_features import proves
from client_servers import ALIAS, AT_ZERO, CHAT, EMBEDDINGS, TOOLS
from client_stack import BROKEN, Address

aiohttp = pytest.importorskip("aiohttp", reason="missing: aiohttp. Install it with: make clients")

USER_INFO = {
    "X-OpenWebUI-User-Name": "Ann",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Email": "ann@example.com",
    "X-OpenWebUI-User-Role": "user",
    "X-OpenWebUI-Chat-Id": "2",
}
USER = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}
PARAMS = {"temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["\x00"]}


class OpenWebUI:
    """Sends requests with its headers."""

    def __init__(self, gateway: Address, session: Any) -> None:
        self.url = gateway.url
        self.session = session
        self.headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {gateway.key}",
            **USER_INFO,
        }

    async def get(self, path: str) -> Any:
        """Get JSON; the library requires its media type."""
        async with self.session.get(f"{self.url}{path}", headers=self.headers) as response:
            assert response.status == 200
            return await response.json()

    def post(self, path: str, payload: Any) -> Any:
        """Send JSON."""
        return self.session.post(
            f"{self.url}{path}", data=json.dumps(payload), headers=self.headers
        )

    async def lines(self, path: str, payload: Any) -> list[str]:
        """Return the lines of a streamed response."""
        async with self.post(path, payload) as response:
            assert response.status == 200, await response.text()
            return [line.decode().strip() async for line in response.content]


@pytest.fixture
async def webui(gateway: Address) -> AsyncIterator[OpenWebUI]:
    async with aiohttp.ClientSession(trust_env=True) as session:
        yield OpenWebUI(gateway, session)


def events(lines: list[str]) -> list[Any]:
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


# An OpenAI connection.


@proves("models")
async def test_models_are_listed_for_both_kinds_of_connections(webui: OpenWebUI) -> None:
    listed = await webui.get("/v1/models")
    tags = await webui.get("/api/tags")
    loaded = await webui.get("/api/ps")
    version = await webui.get("/api/version")

    assert {ALIAS, CHAT} <= {model["id"] for model in listed["data"]}
    # It adds :latest to the names of models without a tag before it looks for them in this list.
    assert {f"{ALIAS}:latest", f"{CHAT}:latest"} <= {model["model"] for model in tags["models"]}
    assert f"{CHAT}:latest" in {model["name"] for model in loaded["models"]}
    assert [int(part) for part in version["version"].split(".")] > [0, 6]


@proves("chat", "streaming", "token counts")
async def test_a_chat_is_streamed_as_for_openai(webui: OpenWebUI) -> None:
    payload = {
        "model": CHAT,
        "messages": USER,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
        "user": "ann",
        **PARAMS,
    }
    found = events(await webui.lines("/v1/chat/completions", payload))

    assert found[-1]["usage"]["completion_tokens"] <= 8


@proves("embeddings")
async def test_texts_are_embedded(webui: OpenWebUI) -> None:
    openai = {"input": ["Hello"], "model": EMBEDDINGS}
    async with webui.post("/v1/embeddings", openai) as response:
        assert len((await response.json())["data"][0]["embedding"]) == 64
    async with webui.post("/api/embed", {"input": ["Hello"], "model": EMBEDDINGS}) as response:
        assert len((await response.json())["embeddings"][0]) == 64


# An Ollama connection.


@proves("chat", "streaming", "token counts")
async def test_a_chat_is_streamed_as_for_ollama(webui: OpenWebUI) -> None:
    payload = {
        "model": f"{ALIAS}:latest",
        "messages": USER,
        "options": {**PARAMS, "num_predict": 8, "num_ctx": 8192, "num_gpu": 99, "use_mmap": True},
        "stream": True,
        "keep_alive": "5m",
        "tools": [],
        "features": {"web_search": False},
    }
    found = [json.loads(line) for line in await webui.lines("/api/chat", payload)]

    assert found[-1]["done"]
    assert 0 < found[-1]["eval_count"] <= 8
    # It shows these as the speed of the response.
    assert found[-1]["eval_duration"] > 0
    assert found[-1]["prompt_eval_duration"] > 0


@proves("tools", "JSON schema")
async def test_tools_and_schemas_as_for_ollama(webui: OpenWebUI) -> None:
    payload = {"messages": USER, "stream": False, "options": {"num_predict": 200}}
    calls = {**payload, "model": f"{TOOLS}:latest", "tools": [TOOL]}
    async with webui.post("/api/chat", calls) as response:
        message = (await response.json())["message"]
    assert message["tool_calls"][0]["function"]["name"] == "answer"
    form = {**payload, "model": f"{TOOLS}:latest", "format": SCHEMA}
    async with webui.post("/api/chat", form) as response:
        message = (await response.json())["message"]
    assert json.loads(message["content"])["sure"] in {True, False}


@proves("errors")
async def test_errors_have_the_field_that_it_shows(webui: OpenWebUI) -> None:
    for path, shown in (("/v1/chat/completions", dict), ("/api/chat", str)):
        async with webui.post(path, {"model": "other:latest", "messages": USER}) as response:
            assert response.status == 404
            assert isinstance((await response.json())["error"], shown)


@proves("errors in a stream")
@pytest.mark.usefixtures("broken")
async def test_a_stream_whose_server_fails_ends_with_an_error(webui: OpenWebUI) -> None:
    lines = await webui.lines("/api/chat", {"model": BROKEN, "messages": USER})
    assert "failed" in json.loads(lines[-1])["error"]
    with pytest.raises(aiohttp.ClientPayloadError):
        await webui.lines("/v1/chat/completions", {"model": BROKEN, "messages": USER})


@proves("wake from zero")
@pytest.mark.usefixtures("asleep")
async def test_a_stream_wakes_a_model_at_zero(webui: OpenWebUI) -> None:
    payload = {"model": AT_ZERO, "messages": USER, "stream": True, "max_tokens": 4}
    found = events(await webui.lines("/v1/chat/completions", payload))

    assert found[-1]["choices"][0]["finish_reason"] in {"stop", "length"}


@proves("cancel")
async def test_a_closed_connection_ends_the_request(
    webui: OpenWebUI, wait_idle: Callable[[], None]
) -> None:
    payload = {
        "model": CHAT,
        "messages": USER,
        "stream": True,
        "max_tokens": 1500,
    }
    async with webui.post("/v1/chat/completions", payload) as response:
        await response.content.readany()
    await asyncio.to_thread(wait_idle)
    options = {"num_predict": 1500}
    async with webui.post(
        "/api/generate", {"model": CHAT, "prompt": "Hello", "raw": True, "options": options}
    ) as response:
        await response.content.readany()
    await asyncio.to_thread(wait_idle)
