"""Beginnings of prompts, as two prompts that have nothing else in common.

A chat template may write something after the system prompt, or merge it into the first message, and
a text may end within a token. What both prompts begin with is what any third one begins with, too.
"""

import json
from dataclasses import dataclass
from typing import Any

from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.prefixes import prefixes
from slotkeeper.bounded_json import parse
from slotkeeper.edge import json_members
from slotkeeper.scheduling import PrefixHashes
from slotkeeper.scheduling.learned_prompts import Learned, Sample

MAX_BYTES = 256 * 1024
"""Of one beginning in a ConfigMap."""

PATHS = {PromptKind.TEXT: b"/v1/completions", PromptKind.CHAT: b"/v1/chat/completions"}

_ENDS = ("0", " x")
"""No tokenizer makes one token of the last character before these and of both of them."""
_MAX_DEPTH = 64
_FORMATS: tuple[dict[str, Any], ...] = (
    {"separators": (",", ":"), "ensure_ascii": False},
    {},
)
"""How most clients write JSON: those in JavaScript and OpenAI's in Python; and Python's default."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt to be tokenized: a text or tokens, or the body of a chat."""

    kind: PromptKind
    content: Any


@dataclass(frozen=True, slots=True)
class Beginning:
    """One beginning. Its text is in no log: see `name`."""

    name: str
    """For people, such as prompts[0]."""
    prompts: tuple[RenderedPrompt, RenderedPrompt]
    prefixes: tuple[PrefixHashes, ...]
    """Of requests that begin so, in each usual form of JSON."""
    size: int
    """Bytes."""
    identity: object
    """What a beginning is recognized by that has failed."""
    learned: PrefixHashes | None = None
    """The prefixes by which it was learned; None: it was configured."""


def from_source(name: str, prompt: SpecPrompt) -> Beginning:
    """Return a beginning of the spec or of a ConfigMap. Raises ValueError with the reason."""
    if prompt.kind is PromptKind.CHAT:
        body = _chat(prompt.source)
        rendered: list[Any] = [_with_message(body, end) for end in _ENDS]
    else:
        if not prompt.source:
            raise ValueError("it is empty")
        body = {"prompt": prompt.source}
        rendered = [prompt.source + end for end in _ENDS]
    first, second = (RenderedPrompt(prompt.kind, each) for each in rendered)
    size = len(prompt.source.encode())
    found = [_prefixes(prompt.kind, body, form) for form in _FORMATS]
    known = tuple(dict.fromkeys(each for each in found if each))
    return Beginning(name, (first, second), known, size, prompt)


def from_learned(number: int, learned: Learned) -> Beginning | None:
    """Return a learned beginning; None if a prompt is not text, as of images."""
    first, second = (_rendered(each) for each in (learned.first, learned.second))
    if first is None or second is None:
        return None
    size = min(len(learned.first.body), len(learned.second.body))
    return Beginning(
        f"learned[{number}]",
        (first, second),
        (learned.prefixes,),
        size,
        learned.prefixes,
        learned.prefixes,
    )


def _chat(source: str) -> dict[str, Any]:
    try:
        body = parse(source, max_bytes=MAX_BYTES, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError('it is not a chat: it must be an object with "messages"')
    if not all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in messages):
        raise ValueError("each of its messages must be an object with a role")
    return {name: value for name, value in body.items() if name != "stream"}


def _with_message(body: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a chat with one more message, of whose turn it is: some templates require that."""
    turn = {"role": "user", "content": text}
    if body["messages"][-1]["role"] != "user":
        return body | {"messages": [*body["messages"], turn]}
    answer = {"role": "assistant", "content": text}
    return body | {"messages": [*body["messages"], answer, turn]}


def _rendered(sample: Sample) -> RenderedPrompt | None:
    try:
        body = parse(sample.body, max_bytes=len(sample.body), max_depth=_MAX_DEPTH)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    if sample.kind is PromptKind.CHAT:
        return RenderedPrompt(sample.kind, body)
    content = body.get("prompt")
    return RenderedPrompt(sample.kind, content) if _is_text_or_tokens(content) else None


def _is_text_or_tokens(content: object) -> bool:
    if isinstance(content, list):
        return bool(content) and all(type(each) is int for each in content)
    return isinstance(content, str)


def _prefixes(kind: PromptKind, body: dict[str, Any], form: dict[str, Any]) -> PrefixHashes:
    text = json.dumps(body, **form).encode()
    return prefixes(PATHS[kind], json_members.parse(text)[1])
