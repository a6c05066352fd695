"""Messages of a chat in OpenAI's format. Pure."""

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from slotkeeper.gateway.ollama.body import Body
from slotkeeper.gateway.ollama.fields import Fields, invalid

Json = dict[str, Any]

# Beginnings of base64, which images have without their type. llama-server detects it itself.
_TYPES = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}


def chat_messages(messages: Iterable[Any], body: Body) -> list[Json]:
    """Return the messages of a chat. Raises HttpError."""
    calls = _Calls()
    found = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        if not isinstance(message, dict):
            raise invalid(f"{where} must be an object")
        found.append(_message(Fields(message, f"{where}."), body, calls))
    return found


def user_message(text: str, images: Iterable[str], body: Body) -> Json:
    """Return a message of the user, with images in base64."""
    return {"role": "user", "content": _content(text, images, body)}


class _Calls:
    """Identifiers of tool calls, which OpenAI's format requires, and Ollama's may lack."""

    def __init__(self) -> None:
        self._count = 0
        self._open: deque[tuple[str, str]] = deque()  # identifier, name of the function

    def add(self, identifier: str | None, name: str) -> str:
        identifier = identifier or f"call_{self._count}"
        self._count += 1
        self._open.append((identifier, name))
        return identifier

    def result_of(self, name: str | None) -> str:
        """Return the identifier of the first call without a result, of this function if given."""
        for call in self._open:
            if name is None or call[1] == name:
                self._open.remove(call)
                return call[0]
        return self._open.popleft()[0] if self._open else f"call_{max(0, self._count - 1)}"


def _message(fields: Fields, body: Body, calls: _Calls) -> Json:
    role = fields.text("role")
    if not role:
        raise invalid("each of messages must have a role: system, user, assistant or tool")
    text = fields.text("content") or ""
    images = fields.items("images", str, "strings in base64") or []
    message: Json = {"role": role, "content": _content(text, images, body)}
    if thinking := fields.text("thinking"):
        message["reasoning_content"] = thinking
    if made := fields.items("tool_calls", dict, "objects"):
        message["tool_calls"] = [_tool_call(each, body, calls) for each in made]
    if role == "tool":
        name = fields.text("tool_name")
        message["tool_call_id"] = fields.text("tool_call_id") or calls.result_of(name)
        if name:
            message["name"] = name
    return message


def _tool_call(call: Json, body: Body, calls: _Calls) -> Json:
    function = Fields(
        Fields(call, "tool_calls[].").tree("function") or {}, "tool_calls[].function."
    )
    name = function.text("name")
    if not name:
        raise invalid("tool_calls[].function.name is missing")
    arguments = body.restored(function.tree("arguments") or {})
    return {
        "id": calls.add(Fields(call).text("id"), name),
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


def _content(text: str, images: Iterable[str], body: Body) -> str | list[Json]:
    parts = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/{_type(image, body)};base64,{image}"},
        }
        for image in images
    ]
    return [{"type": "text", "text": text}, *parts] if parts else text


def _type(image: str, body: Body) -> str:
    beginning = body.beginning(image, 16)
    return next((kind for start, kind in _TYPES.items() if beginning.startswith(start)), "png")
