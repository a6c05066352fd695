"""How llama-server serves a model: the fields of the spec that it is told, and their rules."""

from typing import Annotated, Any, Literal

from pydantic import Field

from slotkeeper.api.extra_args import flags_of
from slotkeeper.api.validation import ApiModel, Rule

CHAT_TEMPLATE_CHARACTERS = 32_767
"""One argument of a program may have 128 KiB, and a character up to four bytes."""

KvCacheType = Annotated[
    Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"],
    Field(json_schema_extra={"maxLength": 8}),
]

FlashAttention = Annotated[
    # Not llama-server's own on and off: YAML reads these, unquoted, as true and false.
    Literal["auto", "enabled", "disabled"],
    Field(json_schema_extra={"maxLength": 8}),
]

ChatTemplate = Annotated[str, Field(min_length=1, max_length=CHAT_TEMPLATE_CHARACTERS)]

Pooling = Annotated[
    Literal["none", "mean", "cls", "last", "rank"], Field(json_schema_extra={"maxLength": 4})
]


class Reasoning(ApiModel):
    """What becomes of the thoughts that a model writes before its answer."""

    enabled: bool | None = None
    """Whether the chat template is asked for thoughts, where it knows how. Default: as the template
    says. Example: false"""

    format: Annotated[
        Literal["auto", "none", "deepseek", "deepseek-legacy"],
        Field(json_schema_extra={"maxLength": 15}),
    ] = "auto"
    """Where thoughts stand in the answer. none: in the content, as the model writes them. deepseek:
    in reasoning_content alone. deepseek-legacy: in both. auto: as the model's chat format has it.
    Default: auto. Example: deepseek"""

    budget_tokens: Annotated[
        int, Field(ge=-1, le=1_000_000, json_schema_extra={"format": "int32"})
    ] = -1
    """Tokens that thoughts may take, up to 1000000; then the model is made to answer. 0: none at
    all, -1: as many as the model likes. Default: -1. Example: 2048"""


class Embeddings(ApiModel):
    """Makes an embedding server, or with `pooling: rank` a reranker, of the model."""

    pooling: Pooling | None = None
    """What becomes of the tokens' vectors. mean, cls and last make one vector of them, none leaves
    one for each token (which /v1/embeddings cannot answer with), rank scores a document for
    /v1/rerank. Default: as the model's file says. Example: mean"""


_QUANTISED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_BATCH_FLAGS = ("-b", "--batch-size", "-ub", "--ubatch-size")


def _is_template(spec: Any) -> bool:
    template = spec.chat_template
    if template is None or not spec.jinja or template == "chatml":
        return True
    return "{{" in template or "{%" in template


RULES = (
    Rule(
        f"!(self.kvCacheType in {list(_QUANTISED)}) || self.flashAttention != 'disabled'",
        "flashAttention must not be disabled with a quantised kvCacheType, which llama-server "
        "cannot load without it: set flashAttention: auto, or kvCacheType: f16",
        lambda spec: spec.kv_cache_type not in _QUANTISED or spec.flash_attention != "disabled",
    ),
    Rule(
        "!has(self.chatTemplate) || !self.jinja || self.chatTemplate == 'chatml' || "
        "self.chatTemplate.contains('{{') || self.chatTemplate.contains('{%')",
        "chatTemplate must be a Jinja template, or chatml: with Jinja llama-server would take "
        "another name for the template's text; set jinja: false for llama.cpp's built-in templates",
        _is_template,
    ),
    Rule(
        "!has(self.embeddings) || !has(self.extraArgs) || !self.extraArgs.exists(argument, "
        f"argument.replace('_', '-') in {list(_BATCH_FLAGS)})",
        "extraArgs must not set the batch sizes beside embeddings: they follow contextPerSlot, "
        "since an input has to fit into one batch",
        lambda spec: spec.embeddings is None or flags_of(spec.extra_args).isdisjoint(_BATCH_FLAGS),
    ),
)
"""What must hold between the fields of a LlamaServer's spec."""
