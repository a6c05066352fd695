"""The fields of a request on which the beginning of llama-server's prompt depends.

Source: tools/server/server-common.cpp and server-chat.cpp, and common/chat.cpp of build 11434. The
fields of chats were checked with /apply-template of build 11669 and the 71 templates of its source.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class PromptFields(NamedTuple):
    """The fields that count on one path. All others only change the response, or the prompt's end.

    Such are tool_choice, parallel_tool_calls, grammar, add_generation_prompt,
    continue_final_message, reasoning_format and the reasoning budget. `chat_template` and
    `functions` are ignored by llama-server, and `model` where it has one.
    """

    prompt: tuple[str, ...]
    """Their values are the prompt, in this order."""
    settings: tuple[str, ...]
    """Their values change the prompt from its beginning on."""


# Computed with other adapters, the same tokens have another state.
_COMPLETION = PromptFields(("prompt",), ("lora",))
_CHAT_SETTINGS = (
    "chat_template_kwargs",
    # Both have the schema, which the template of DeepSeek V4 writes into the system prompt.
    "json_schema",
    "lora",
    "reasoning_effort",
    "response_format",
    "tools",
)
_CHAT = PromptFields(("messages",), _CHAT_SETTINGS)
_RESPONSES = PromptFields(("instructions", "input"), (*_CHAT_SETTINGS, "reasoning"))

PROMPT_FIELDS: Mapping[bytes, PromptFields] = MappingProxyType(
    {
        b"/completion": _COMPLETION,
        b"/completions": _COMPLETION,
        b"/v1/completions": _COMPLETION,
        b"/chat/completions": _CHAT,
        b"/v1/chat/completions": _CHAT,
        b"/responses": _RESPONSES,
        b"/v1/responses": _RESPONSES,
        # Anthropic's other fields are not passed on to the template.
        b"/v1/messages": PromptFields(("system", "messages"), ("chat_template_kwargs", "tools")),
        b"/infill": PromptFields(("input_extra", "input_prefix"), ("lora",)),
    }
)
"""By path, for all paths whose prompts are cached."""

_BILLING_HEADER = b'"x-anthropic-billing-header:'
_BILLING_CODE = re.compile(rb'("x-anthropic-billing-header:[^"\\]*?cch=)[^"\\]{5};')


def without_billing_code(system: bytes) -> bytes:
    """Return the JSON of a system prompt with the code masked that Claude Code changes each time.

    llama-server does the same: otherwise no request would share a prefix with the one before.
    """
    if _BILLING_HEADER not in system:
        return system
    return _BILLING_CODE.sub(rb"\1fffff;", system)
