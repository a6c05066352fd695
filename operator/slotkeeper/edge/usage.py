"""Token usage of a response, read from the places where llama-server reports it."""

import re
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from slotkeeper.bounded_json import parse

_MAX_PIECES = 8  # usually one event each, and few events follow the usage
_MAX_BYTES = 8 * 1024  # of a piece
_MAX_PARSED = 2 * _MAX_PIECES * _MAX_BYTES

# Chunk size lines. Neither single-line JSON nor llama-server's events contain a CRLF themselves.
_CHUNK = re.compile(rb"\r\n[0-9A-Fa-f]+[^\r\n]*\r\n")


class Tokens(NamedTuple):
    """Token counts of one response, or of all."""

    prompt: int = 0
    """Prompt tokens that were computed."""
    cached: int = 0
    """Prompt tokens that were found in the cache."""
    generated: int = 0
    """Generated tokens."""


class BodyEdges:
    """The first and the last pieces of a response's body, stored as they pass through.

    They are parsed when the response is complete, to keep the work per piece small.
    """

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first: bytes | None = None
        self._last: deque[bytes] = deque(maxlen=_MAX_PIECES)

    def append(self, data: bytes) -> None:
        """Store a piece, as received."""
        if self._first is None:
            self._first = data[:_MAX_BYTES]
        if len(data) > _MAX_BYTES:
            self._last.clear()
            data = data[-_MAX_BYTES:]
        self._last.append(data)

    def tokens(self, path: bytes) -> Tokens | None:
        """Return the usage that the complete response to `path` reports; None if none."""
        return parse_usage(path, self._first or b"", self._last)

    def prompt_seconds(self) -> float | None:
        """Return how long llama-server computed the prompt; None if it reports no `timings`."""
        timings = _last_object(b"".join(self._last), b"timings")
        milliseconds = timings.get("prompt_ms") if timings else None
        if isinstance(milliseconds, int | float) and milliseconds > 0:
            return milliseconds / 1000
        return None


def parse_usage(path: bytes, first: bytes, last: Iterable[bytes]) -> Tokens | None:
    """Return the usage that a complete response to `path` reports; None if none.

    `first` and `last` are pieces of its body as received, with or without chunk framing.
    llama-server reports usage in these places: /v1/chat/completions, /v1/completions, /completion
    and /infill in `timings`, in the whole response or in a stream's last event before [DONE];
    /v1/responses in `usage` at the end, in a stream inside `response`; /v1/messages likewise, but
    in a stream the prompt's part is in the first event; embeddings and rerankings in `usage` before
    everything else.

    Generated text cannot be mistaken for usage: inside a JSON string a backslash precedes every
    quote, so `"usage":` occurs only at the end of a key, and is the whole key unless a backslash
    precedes it. Nor can JSON that a model generates as a tool's input: a key must be at exactly the
    depth listed here.
    """
    if b"embedding" in path or b"rerank" in path:
        return _from_usage(_first_object(first))
    end = b"".join(last)
    if path.endswith(b"/messages"):
        usage = _last_object(end, b"usage")
        if usage is not None and "input_tokens" not in usage:
            started = _line(first, first.find(b'"usage":'), b"usage", depth=2)
            usage = {**(started or {}), **usage}
        return _from_usage(usage)
    if path.endswith(b"/responses"):
        usage = _last_object(end, b"usage")
        return _from_usage(_last_object(end, b"usage", depth=2) if usage is None else usage)
    return _from_timings(_last_object(end, b"timings")) or _from_usage(_last_object(end, b"usage"))


Object = dict[str, Any]


def _last_object(text: bytes, key: bytes, *, depth: int = 1) -> Object | None:
    """Return the object under the last `key`, if that is `depth` objects deep in its line."""
    at = text.rfind(b'"%s":' % key)
    if at < 0:
        # A proxy in front of llama-server may have split its chunks differently.
        text = _CHUNK.sub(b"", text)
        at = text.rfind(b'"%s":' % key)
    return _line(text, at, key, depth=depth)


def _line(text: bytes, at: int, key: bytes, *, depth: int) -> Object | None:
    if at < 0 or text[at - 1 : at] == b"\\":
        return None
    line = _CHUNK.sub(b"", text[at:]).partition(b"\n")[0]
    # The text after the key must close exactly as many objects as are opened here.
    outer = [""] * (depth - 1)
    return _get(b'{"":' * len(outer) + b"{" + line, *outer, key.decode())


def _first_object(text: bytes) -> Object | None:
    """Return the flat object under the first `usage`, if that is in the outermost object."""
    at = text.find(b'"usage":{')
    end = text.find(b"}", at) + 1
    if at < 0 or end == 0 or text[at - 1 : at] == b"\\":
        return None
    return _get(text[text.find(b"{") : end] + b"}", "usage")


def _get(text: bytes, *path: str) -> Object | None:
    try:
        tree: Any = parse(text, max_bytes=_MAX_PARSED)
    except ValueError:
        return None
    for name in path:
        tree = tree.get(name)
        if not isinstance(tree, dict):
            return None
    return cast("Object", tree)


def _from_timings(timings: Object | None) -> Tokens | None:
    if timings is None:
        return None
    return _tokens(timings.get("prompt_n"), timings.get("cache_n", 0), timings.get("predicted_n"))


def _from_usage(usage: Object | None) -> Tokens | None:
    if usage is None:
        return None
    if "prompt_tokens" in usage:
        # OpenAI's prompt_tokens include the cached ones.
        prompt = usage["prompt_tokens"]
        generated = usage.get("completion_tokens", 0)
        cached = _detail(usage, "prompt_tokens_details")
    elif "input_tokens_details" in usage:
        prompt = usage.get("input_tokens")
        generated = usage.get("output_tokens")
        cached = _detail(usage, "input_tokens_details")
    else:
        # Anthropic's input_tokens exclude the cached ones.
        read = usage.get("cache_read_input_tokens", 0)
        return _tokens(usage.get("input_tokens", 0), read, usage.get("output_tokens"))
    if _tokens(prompt, cached, generated) is None:
        return None
    return _tokens(prompt - cached, cached, generated)


def _detail(usage: Object, name: str) -> Any:
    details = usage.get(name)
    return details.get("cached_tokens", 0) if isinstance(details, dict) else 0


def _tokens(*numbers: Any) -> Tokens | None:
    # In Python a bool is an int too. llama-server writes -1 for an unknown number.
    if all(type(number) is int and number >= 0 for number in numbers):
        return Tokens(*numbers)
    return None
