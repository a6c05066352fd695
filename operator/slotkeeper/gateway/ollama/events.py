"""What one event of a stream, or a whole response, of llama-server contains. Pure."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

_STOP_TYPES = {"limit": "length"}


@dataclass(slots=True)
class Piece:
    """A part of a response. It may contain any of these."""

    text: str = ""
    thinking: str = ""
    tool_calls: list[Json] = field(default_factory=list)
    """Complete calls, or parts of calls, in OpenAI's format."""
    logprobs: list[Json] = field(default_factory=list)
    finish: str | None = None
    """OpenAI's finish_reason."""
    error: str | None = None
    timings: Json = field(default_factory=dict)
    usage: Json = field(default_factory=dict)


def piece_of(tree: Any) -> Piece:
    """Return the contents of a response to /v1/chat/completions, /v1/completions or /infill.

    Whatever is not as expected counts as missing.
    """
    tree = _object(tree)
    piece = Piece(timings=_object(tree.get("timings")), usage=_object(tree.get("usage")))
    if tree.get("error"):
        piece.error = error_message(tree)
        return piece
    choice = _object(next(iter(_list(tree.get("choices"))), None))
    if choice:
        message = _object(choice.get("delta") or choice.get("message"))
        piece.text = _text(message.get("content")) or _text(choice.get("text"))
        piece.thinking = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
        piece.tool_calls = _objects(message.get("tool_calls"))
        piece.logprobs = _objects(_object(choice.get("logprobs")).get("content"))
        piece.finish = _text(choice.get("finish_reason")) or None
    elif "content" in tree:
        # /infill has no format of OpenAI's.
        piece.text = _text(tree["content"])
        if tree.get("stop") is True or "stop_type" in tree:
            piece.finish = _STOP_TYPES.get(_text(tree.get("stop_type")), "stop")
    return piece


def error_message(tree: Any) -> str | None:
    """Return the message of an error response in OpenAI's format; None if it is none."""
    error = _object(tree).get("error")
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) and error else None


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[Json]:
    return [each for each in _list(value) if isinstance(each, dict)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
