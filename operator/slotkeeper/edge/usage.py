"""How many tokens an answer took: what llama-server says of it, read where it stands."""

import json
import re
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

_PIECES = 8  # an event a piece, and few come after the numbers
_BYTES = 8 * 1024  # of a piece

# Chunks' size lines. Neither JSON on one line nor llama-server's events have a CRLF of their own.
_CHUNK = re.compile(rb"\r\n[0-9A-Fa-f]+[^\r\n]*\r\n")


class Tokens(NamedTuple):
    """What one answer took, or all of them."""

    prompt: int = 0
    """Tokens of prompts that were computed."""
    cached: int = 0
    """Tokens of prompts that the cache held."""
    generated: int = 0
    """Tokens of answers."""


class BodyEdges:
    """The first and the last pieces of an answer's body, kept as they pass.

    They are looked at once it is complete: while it passes every step counts.
    """

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first: bytes | None = None
        self._last: deque[bytes] = deque(maxlen=_PIECES)

    def append(self, data: bytes) -> None:
        """Another piece, as it came."""
        if self._first is None:
            self._first = data[:_BYTES]
        if len(data) > _BYTES:
            self._last.clear()
            data = data[-_BYTES:]
        self._last.append(data)

    def tokens(self, path: bytes) -> Tokens | None:
        """What the complete answer says of tokens, if anything."""
        return tokens_of(path, self._first or b"", self._last)


def tokens_of(path: bytes, first: bytes, last: Iterable[bytes]) -> Tokens | None:
    """What a complete answer on `path` says; None where it says nothing.

    `first` and `last` are pieces of its body as they came, with or without chunk framing. What
    llama-server sends: /v1/chat/completions, /v1/completions, /completion and /infill say
    `timings` in the whole answer or in the stream's last event but [DONE]; /v1/responses says
    `usage` at the end, in a stream inside of `response`; /v1/messages the same, but in a stream
    the prompt's part in the first event; embeddings and rerankings say `usage` before all else.

    Text can not pass for numbers: inside a JSON string every quote has a backslash before it, so
    `"usage":` is found only where a key ends, and is that key unless a backslash precedes it. Nor
    can JSON that a model made up inside of a tool's input: a key must stand as deep as said here.
    """
    if b"embedding" in path or b"rerank" in path:
        return _from_usage(_first_object(first))
    end = b"".join(last)
    if path.endswith(b"/messages"):
        used = _last_object(end, b"usage")
        if used is not None and "input_tokens" not in used:
            begun = _line(first, first.find(b'"usage":'), b"usage", depth=2)
            used = {**(begun or {}), **used}
        return _from_usage(used)
    if path.endswith(b"/responses"):
        used = _last_object(end, b"usage")
        return _from_usage(_last_object(end, b"usage", depth=2) if used is None else used)
    return _from_timings(_last_object(end, b"timings")) or _from_usage(_last_object(end, b"usage"))


Object = dict[str, Any]


def _last_object(text: bytes, key: bytes, *, depth: int = 1) -> Object | None:
    """The object behind the last `key`, if it is `depth` objects deep in its line."""
    at = text.rfind(b'"%s":' % key)
    if at < 0:
        # Somebody between us and llama-server may have cut its chunks anew.
        text = _CHUNK.sub(b"", text)
        at = text.rfind(b'"%s":' % key)
    return _line(text, at, key, depth=depth)


def _line(text: bytes, at: int, key: bytes, *, depth: int) -> Object | None:
    if at < 0 or text[at - 1 : at] == b"\\":
        return None
    line = _CHUNK.sub(b"", text[at:]).partition(b"\n")[0]
    # What follows the key must close exactly as many objects as are opened for it here.
    outer = [""] * (depth - 1)
    return _get(b'{"":' * len(outer) + b"{" + line, *outer, key.decode())


def _first_object(text: bytes) -> Object | None:
    """The flat object behind the first `usage`, if it stands in the outermost one."""
    at = text.find(b'"usage":{')
    end = text.find(b"}", at) + 1
    if at < 0 or end == 0 or text[at - 1 : at] == b"\\":
        return None
    return _get(text[text.find(b"{") : end] + b"}", "usage")


def _get(text: bytes, *path: str) -> Object | None:
    try:
        tree: Any = json.loads(text.decode())
    except (ValueError, RecursionError):
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
        # OpenAI's prompt has the cached ones in it.
        prompt = usage["prompt_tokens"]
        generated = usage.get("completion_tokens", 0)
        cached = _detail(usage, "prompt_tokens_details")
    elif "input_tokens_details" in usage:
        prompt = usage.get("input_tokens")
        generated = usage.get("output_tokens")
        cached = _detail(usage, "input_tokens_details")
    else:
        # Anthropic's has not.
        read = usage.get("cache_read_input_tokens", 0)
        return _tokens(usage.get("input_tokens", 0), read, usage.get("output_tokens"))
    if _tokens(prompt, cached, generated) is None:
        return None
    return _tokens(prompt - cached, cached, generated)


def _detail(usage: Object, name: str) -> Any:
    details = usage.get(name)
    return details.get("cached_tokens", 0) if isinstance(details, dict) else 0


def _tokens(*numbers: Any) -> Tokens | None:
    # A bool is an int to Python, and -1 is llama-server's word for nothing.
    if all(type(number) is int and number >= 0 for number in numbers):
        return Tokens(*numbers)
    return None
