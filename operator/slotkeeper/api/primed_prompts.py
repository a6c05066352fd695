"""The beginnings in `spec.prime`, from the operator to the balancers.

The operator publishes them as an annotation of the balancers' Role, so that a change restarts no
balancer. No pydantic: the balancer's image has none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slotkeeper.bounded_json import parse

MAX_PROMPTS = 16
MAX_INLINE_CHARACTERS = 32_768
"""Of all beginnings in a spec. Kubernetes allows 256 KiB of annotations, in UTF-8."""

_MAX_CHARACTERS = 2**18


class PromptKind(StrEnum):
    """What a beginning is."""

    TEXT = "text"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class SpecPrompt:
    """One beginning, unparsed."""

    kind: PromptKind
    source: str
    """Text, or the body of a chat in JSON."""


def to_annotation(prompts: Sequence[SpecPrompt]) -> str:
    """Return the annotation's value."""
    return json.dumps([{each.kind.value: each.source} for each in prompts], ensure_ascii=False)


def from_annotation(text: str | None) -> list[SpecPrompt]:
    """Parse an annotation's value; None: there are none. Raises ValueError if it is malformed."""
    if text is None:
        return []
    tree = parse(text, max_bytes=_MAX_CHARACTERS)
    if not isinstance(tree, list):
        raise ValueError("not a list")
    return [_prompt(item) for item in tree[:MAX_PROMPTS]]


def _prompt(item: object) -> SpecPrompt:
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError("not a prompt")
    [(kind, source)] = item.items()
    if not isinstance(source, str):
        raise ValueError("not the text of a prompt")
    return SpecPrompt(PromptKind(kind), source)
