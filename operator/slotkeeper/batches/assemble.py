"""Make the response that a request without `stream` has from the events of its stream. Pure.

Requests of batches are sent as streams. llama-server notices that a client has disconnected only
when it sends a token: only a running stream frees its slot at once for another request.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from slotkeeper import bounded_json
from slotkeeper.batches.client import MAX_RESPONSE, Interrupted, Reply

STREAMED = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses"))
"""Endpoints whose requests are sent as streams."""

Json = dict[str, Any]

_STATUS_OF_CODE = {
    "replica_failed": 502,
    "server_failed": 502,
    "server_unreachable": 502,
    "replica_unresponsive": 504,
    "server_timeout": 504,
}
_STATUS_OF_TYPE = {
    "authentication_error": 401,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "unavailable_error": 503,
    "server_error": 500,
}
"""An error in a stream has no status of its own, but what follows from it."""


def as_stream(endpoint: str, body: Json) -> Json:
    """Return the body of a request with which its response is a stream, if it can be one."""
    if endpoint not in STREAMED:
        return body
    if endpoint == "/v1/responses":
        return {**body, "stream": True}
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def assemble(endpoint: str, reply: Reply) -> Reply:
    """Return the complete response. Raises Interrupted if the stream is not complete.

    A response that is no stream is returned unchanged.
    """
    if not reply.is_stream:
        return reply
    events = list(_events(reply.body))
    for event in events:
        if (error := event.get("error")) is not None and "choices" not in event:
            return reply._replace(status=_status(error), body=_dump({"error": error}))
    tree = _response(events) if endpoint == "/v1/responses" else _completion(endpoint, events)
    return reply._replace(body=_dump(tree))


def _events(body: bytes) -> Iterator[Json]:
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(
            line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")
        )
        if not data or data == b"[DONE]":
            continue
        try:
            event = bounded_json.parse(data, max_bytes=MAX_RESPONSE, max_depth=256)
        except ValueError:
            raise Interrupted("an event of the stream is not valid JSON") from None
        if isinstance(event, dict):
            yield event


def _response(events: list[Json]) -> Json:
    for event in reversed(events):
        if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
            response = event.get("response")
            if isinstance(response, dict):
                return response
    raise Interrupted("the stream ended without its response")


def _completion(endpoint: str, events: list[Json]) -> Json:
    is_chat = endpoint == "/v1/chat/completions"
    tree: Json = {}
    choices: dict[int, Json] = {}
    for event in events:
        found = event.get("choices")
        for part in found if isinstance(found, list) else ():
            if isinstance(part, dict) and isinstance(index := part.get("index", 0), int):
                _add(choices.setdefault(index, {"index": index}), part, is_chat=is_chat)
        tree |= {
            name: value
            for name, value in event.items()
            if name not in {"choices", "object"} and value is not None
        }
    if not choices or any(each.get("finish_reason") is None for each in choices.values()):
        raise Interrupted("the stream ended before its choices were complete")
    ordered = [choices[index] for index in sorted(choices)]
    return {
        **tree,
        "object": "chat.completion" if is_chat else "text_completion",
        "choices": [_chat_choice(each) if is_chat else each for each in ordered],
    }


def _add(choice: Json, part: Json, *, is_chat: bool) -> None:
    """Add a part of a choice to what there is of it."""
    if part.get("finish_reason") is not None:
        choice["finish_reason"] = part["finish_reason"]
    if isinstance(logprobs := part.get("logprobs"), dict):
        _merge(choice.setdefault("logprobs", {}), logprobs)
    if not is_chat:
        choice["text"] = choice.get("text", "") + _text(part.get("text"))
    elif isinstance(delta := part.get("delta"), dict):
        message = choice.setdefault("message", {"role": "assistant", "content": None})
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(index := call.get("index", 0), int):
                _add_call(message.setdefault("tool_calls", {}).setdefault(index, {}), call)
        for name, value in delta.items():
            if name not in {"role", "tool_calls"} and value is not None:
                message[name] = _joined(message.get(name), value)


def _add_call(call: Json, part: Json) -> None:
    for name in ("id", "type"):
        if part.get(name):
            call[name] = part[name]
    if isinstance(function := part.get("function"), dict):
        known = call.setdefault("function", {"name": "", "arguments": ""})
        known["name"] = known["name"] or _text(function.get("name"))
        known["arguments"] += _text(function.get("arguments"))


def _chat_choice(choice: Json) -> Json:
    message = choice.get("message") or {"role": "assistant", "content": None}
    if calls := message.get("tool_calls"):
        message = {**message, "tool_calls": [calls[index] for index in sorted(calls)]}
    return {**choice, "message": message}


def _merge(known: Json, part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if value is not None:
            known[name] = _joined(known.get(name), value)


def _joined(known: Any, value: Any) -> Any:
    """Texts and lists continue; of anything else the last value counts."""
    if type(known) is type(value) and isinstance(value, str | list):
        return known + value
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _status(error: Any) -> int:
    if not isinstance(error, dict):
        return 500
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return code
    found = _STATUS_OF_CODE.get(code) if isinstance(code, str) else None
    kind = error.get("type")
    return found or (_STATUS_OF_TYPE.get(kind, 400) if isinstance(kind, str) else 500)


def _dump(tree: Json) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
