"""Types and rules of the spec's fields that become arguments of llama-server."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from slotkeeper.api import flash_attention
from slotkeeper.api.extra_args import flags_of
from slotkeeper.api.json_object import JsonObject
from slotkeeper.api.validation import ApiModel, Rule

CHAT_TEMPLATE_CHARACTERS = 32_767
"""Linux limits an argument of a program to 128 KiB; a character has up to four bytes."""

MAX_SLOTS = 256

KvCacheType = Annotated[
    Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"],
    Field(json_schema_extra={"maxLength": 8}),
]

FlashAttention = Annotated[
    # Not on and off as for llama-server: unquoted, YAML parses these as true and false.
    Literal["auto", "enabled", "disabled"],
    Field(json_schema_extra={"maxLength": 8}),
]

ChatTemplate = Annotated[str, Field(min_length=1, max_length=CHAT_TEMPLATE_CHARACTERS)]

VARIABLE = "[A-Za-z_][A-Za-z0-9_]{0,63}"
"""Name of a variable in a Jinja template."""

_THINKING = "enable_thinking"


def _variables(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in kwargs:
        if re.fullmatch(VARIABLE, name) is None:
            raise ValueError(
                f"must have the names of variables, not {name!r}: up to 64 letters, digits and '_'"
            )
    if _THINKING in kwargs:
        raise ValueError(
            f"must not contain {_THINKING}: set reasoning.enabled, which also decides how the "
            "reasoning is parsed"
        )
    return kwargs


ChatTemplateKwargs = Annotated[JsonObject, AfterValidator(_variables)]
"""The API server does not see which variables there are: the operator rejects them."""

Pooling = Annotated[
    Literal["none", "mean", "cls", "last", "rank"], Field(json_schema_extra={"maxLength": 4})
]


class Reasoning(ApiModel):
    """Reasoning (thinking) of the model before its answer."""

    enabled: bool | None = None
    """Whether the model reasons, if its chat template supports the choice. Default: the template's
    default. Example: false"""

    format: Annotated[
        Literal["auto", "none", "deepseek", "deepseek-legacy"],
        Field(json_schema_extra={"maxLength": 15}),
    ] = "auto"
    """Place of the reasoning in the response. none: in content, as the model generates it.
    deepseek: in reasoning_content only. deepseek-legacy: in both. auto: according to the model's
    chat format. Default: auto. Example: deepseek"""

    budget_tokens: Annotated[
        int, Field(ge=-1, le=1_000_000, json_schema_extra={"format": "int32"})
    ] = -1
    """Maximum number of reasoning tokens, -1 to 1000000; the model must then answer. 0: no
    reasoning. -1: no limit. Default: -1. Example: 2048"""


class Embeddings(ApiModel):
    """Serves embeddings, or with `pooling: rank` a reranker, instead of text generation."""

    pooling: Pooling | None = None
    """Pooling of the vectors of all tokens. mean, cls and last: one vector for the input. none: one
    vector for each token, which /v1/embeddings cannot return. rank: the score of a document, for
    /v1/rerank. Default: the default in the model's file. Example: mean"""


_BATCH_FLAGS = ("-b", "--batch-size", "-ub", "--ubatch-size")


def _is_template(spec: Any) -> bool:
    template = spec.chat_template
    if template is None or not spec.jinja or template == "chatml":
        return True
    return "{{" in template or "{%" in template


RULES = (
    Rule(
        f"!(self.kvCacheType in {list(flash_attention.QUANTIZED)}) || "
        "self.flashAttention != 'disabled'",
        flash_attention.FOR_CACHE,
        lambda spec: flash_attention.allows_cache(spec.flash_attention, spec.kv_cache_type),
    ),
    Rule(
        "self.gpu.splitMode != 'tensor' || self.flashAttention != 'disabled'",
        flash_attention.FOR_SPLIT,
        lambda spec: flash_attention.allows_split(spec.flash_attention, spec.gpu.split_mode),
    ),
    Rule(
        "!has(self.chatTemplate) || !self.jinja || self.chatTemplate == 'chatml' || "
        "self.chatTemplate.contains('{{') || self.chatTemplate.contains('{%')",
        "chatTemplate must be a Jinja template, or chatml: llama-server would treat another name "
        "as the text of a template; set jinja: false for llama.cpp's built-in templates",
        _is_template,
    ),
    Rule(
        "!has(self.chatTemplateKwargs) || self.jinja",
        "chatTemplateKwargs must not be set with jinja: false: only Jinja templates have variables",
        lambda spec: spec.chat_template_kwargs is None or spec.jinja,
    ),
    Rule(
        "!has(self.chatTemplateKwargs) || !has(self.embeddings)",
        "chatTemplateKwargs must not be set with embeddings, which serve no chats. Remove "
        "chatTemplateKwargs",
        lambda spec: spec.chat_template_kwargs is None or spec.embeddings is None,
    ),
    Rule(
        "!has(self.embeddings) || !has(self.contextCheckpoints)",
        "contextCheckpoints must not be set with embeddings: no input continues another one",
        lambda spec: spec.embeddings is None or spec.context_checkpoints is None,
    ),
    Rule(
        "!has(self.embeddings) || !has(self.extraArgs) || !self.extraArgs.exists(argument, "
        f"argument.replace('_', '-') in {list(_BATCH_FLAGS)})",
        "extraArgs must not set batch sizes with embeddings: they follow contextPerSlot, because "
        "an input has to fit into one batch",
        lambda spec: spec.embeddings is None or flags_of(spec.extra_args).isdisjoint(_BATCH_FLAGS),
    ),
)
"""Rules across fields of LlamaServerSpec."""
