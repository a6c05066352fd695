"""How beginnings are recognized in requests."""

import json
from typing import Any

import pytest

from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.prefixes import prefixes
from slotkeeper.balancer.priming.beginnings import from_learned, from_source
from slotkeeper.edge import json_members
from slotkeeper.scheduling.learned_prompts import Learned, Sample

SYSTEM = {"role": "system", "content": "Be brief, señor, and honest. " * 100}
USER = {"role": "user", "content": "Why?"}
TOOLS = [{"type": "function", "function": {"name": "find"}}]
FORMATS: list[dict[str, Any]] = [{}, {"separators": (",", ":"), "ensure_ascii": False}]


@pytest.mark.parametrize("form", FORMATS, ids=["Python", "JavaScript"])
@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}], ids=["alone", "tools"])
def test_a_chat_has_the_prefixes_of_requests_that_begin_so(
    form: dict[str, Any], more: dict[str, Any]
) -> None:
    source = json.dumps({"messages": [SYSTEM], **more}, indent=2)
    beginning = from_source("a", SpecPrompt(PromptKind.CHAT, source))
    body = json.dumps({"model": "x", "messages": [SYSTEM, USER], **more}, **form).encode()

    found = prefixes(b"/v1/chat/completions", json_members.parse(body)[1])

    assert len(found) == 2
    assert found in beginning.prefixes


def test_a_text_has_the_prefixes_of_longer_ones() -> None:
    beginning = from_source("a", SpecPrompt(PromptKind.TEXT, "Be brief. " * 300))
    body = json.dumps({"prompt": "Be brief. " * 300 + "Why?"}).encode()
    found = prefixes(b"/completion", json_members.parse(body)[1])
    assert beginning.prefixes == (found,)


@pytest.mark.parametrize(
    ("kind", "body", "usable"),
    [
        (PromptKind.CHAT, b'{"messages": []}', True),
        (PromptKind.TEXT, b'{"prompt": "a"}', True),
        (PromptKind.TEXT, b'{"prompt": [1, 2]}', True),
        (PromptKind.TEXT, b'{"prompt": ["a", "b"]}', False),
        (PromptKind.TEXT, b'{"prompt": []}', False),
        (PromptKind.TEXT, b'{"prompt": {"prompt_string": "a", "multimodal_data": []}}', False),
        (PromptKind.TEXT, b"{}", False),
        (PromptKind.TEXT, b"[]", False),
        (PromptKind.CHAT, b"{", False),
    ],
)
def test_only_prompts_of_text_or_tokens_are_learned(
    kind: PromptKind, body: bytes, usable: bool
) -> None:
    sample = Sample(kind, body, b"", None)
    assert (from_learned(0, Learned((1,), sample, sample)) is not None) == usable
