"""Anthropic's library."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client_features import proves
from client_servers import ALIAS, AT_ZERO, CHAT, TOOLS
from client_stack import BROKEN, Address

anthropic = pytest.importorskip(
    "anthropic", reason="missing: anthropic. Install it with: make clients"
)

USER: Any = [{"role": "user", "content": "Hello"}]
TOOL: Any = {
    "name": "answer",
    "input_schema": {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(gateway: Address) -> Iterator[Any]:
    # It sends the key as X-Api-Key.
    with anthropic.Anthropic(
        base_url=gateway.url, api_key=gateway.key, max_retries=0, timeout=60
    ) as client:
        yield client


@proves("models")
def test_models_are_listed(client: Any) -> None:
    assert {ALIAS, CHAT} <= {model.id for model in client.models.list().data}


@proves("chat")
def test_a_message_is_created(client: Any) -> None:
    message = client.messages.create(
        model=ALIAS, max_tokens=4, messages=USER, system="You are kind."
    )

    assert message.content[0].type == "text"
    assert message.usage.output_tokens <= 4


@proves("streaming")
def test_a_message_is_streamed(client: Any) -> None:
    with client.messages.stream(model=CHAT, max_tokens=32, messages=USER) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_message()

    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    assert message.usage.output_tokens == 32


@proves("tools")
def test_a_tool_is_called(client: Any) -> None:
    request = {
        "model": TOOLS,
        "max_tokens": 200,
        "messages": USER,
        "tools": [TOOL],
        "tool_choice": {"type": "any"},
    }
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message()

    for message in (whole, streamed):
        assert message.content[0].type == "tool_use"
        assert message.content[0].name == "answer"
        assert message.content[0].input["sure"] in {True, False}


@proves("token counts")
def test_tokens_are_counted(client: Any) -> None:
    assert client.messages.count_tokens(model=ALIAS, messages=USER).input_tokens > 10


@proves("errors")
def test_errors_have_the_librarys_types(client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="other", max_tokens=4, messages=USER)
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        client.with_options(api_key="wrong").messages.create(
            model=CHAT, max_tokens=4, messages=USER
        )
    with pytest.raises(anthropic.BadRequestError) as invalid:
        client.messages.create(model=CHAT, max_tokens=4, messages=USER, extra_body={"model": 1})

    for error, kind in (
        (unknown, "not_found_error"),
        (wrong, "authentication_error"),
        (invalid, "invalid_request_error"),
    ):
        assert error.value.body["type"] == "error"
        assert error.value.body["error"]["type"] == kind


@proves("errors in a stream")
@pytest.mark.usefixtures("broken")
def test_a_stream_whose_server_fails_raises_an_error(client: Any) -> None:
    stream = client.messages.create(model=BROKEN, max_tokens=4, messages=USER, stream=True)

    assert next(stream).type == "message_start"
    with pytest.raises(Exception, match="peer closed connection"):
        next(stream)


@proves("wake from zero")
@pytest.mark.usefixtures("asleep")
def test_a_stream_wakes_a_model_at_zero(client: Any) -> None:
    with client.messages.stream(model=AT_ZERO, max_tokens=32, messages=USER) as stream:
        message = stream.get_final_message()

    assert message.usage.output_tokens == 32


@proves("cancel")
def test_a_closed_stream_ends_the_request(client: Any, wait_idle: Callable[[], None]) -> None:
    stream = client.messages.create(model=CHAT, max_tokens=1500, messages=USER, stream=True)
    next(stream)
    stream.close()

    wait_idle()
