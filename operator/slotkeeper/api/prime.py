"""Beginnings of prompts that new replicas compute before they get requests: `spec.prime`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api.placement import Name
from slotkeeper.api.primed_prompts import MAX_INLINE_CHARACTERS, MAX_PROMPTS
from slotkeeper.api.validation import ApiModel, Rule

_Beginning = Annotated[str, Field(min_length=1, max_length=MAX_INLINE_CHARACTERS)]


class PrimedPrompt(ApiModel):
    """The beginning of prompts: a text, or a chat."""

    rules: ClassVar = (
        Rule(
            "has(self.text) != has(self.chat)",
            "must set either text or chat",
            lambda prompt: (prompt.text is None) != (prompt.chat is None),
        ),
    )

    text: _Beginning | None = None
    """Beginning of the prompt of /v1/completions and /completion, up to 32768 characters.
    Example: You write release notes."""

    chat: _Beginning | None = None
    """Beginning of requests to /v1/chat/completions, as their body in JSON, up to 32768 characters:
    the first messages, and all else that the chat template shows, such as tools and
    chat_template_kwargs. It is text, since Kubernetes would change the order of the members, and
    with it the prompt.
    Example: '{"messages": [{"role": "system", "content": "You are a lawyer."}]}'"""


class Prime(ApiModel):
    """Computes beginnings that many prompts share on each new replica, before it gets requests."""

    rules: ClassVar = (
        Rule(
            "has(self.prompts) && self.prompts.size() > 0 || has(self.configMapName) || "
            "has(self.learned) && self.learned",
            "must set at least one of prompts, configMapName and learned: true",
            lambda prime: bool(prime.prompts or prime.config_map_name or prime.learned),
        ),
        Rule(
            "!has(self.prompts) || self.prompts.map(each, (has(each.text) ? each.text.size() : 0)"
            f" + (has(each.chat) ? each.chat.size() : 0)).sum() <= {MAX_INLINE_CHARACTERS}",
            f"prompts must have at most {MAX_INLINE_CHARACTERS} characters together: move some to a"
            " ConfigMap, and set configMapName",
            lambda prime: (
                sum(len(each.text or "") + len(each.chat or "") for each in prime.prompts)
                <= MAX_INLINE_CHARACTERS
            ),
        ),
    )

    prompts: Annotated[list[PrimedPrompt], Field(max_length=MAX_PROMPTS)] = Field(
        default_factory=list
    )
    """Beginnings, the most frequent first, up to 16 with 32768 characters together. Default: none.
    Example: [{text: You write release notes.}]"""

    config_map_name: Name | None = None
    """Name of a ConfigMap in the server's namespace with further beginnings, in the order of their
    keys: a chat in JSON if the key ends with .json, else a text. Changes apply to replicas that
    start a minute later. Up to 32 keys of 256 KiB. Example: beginnings"""

    learned: bool = False
    """Whether the balancer finds out which beginnings different requests share, and new replicas
    compute the most frequent ones after those of prompts and configMapName. For this, requests of
    up to 64 KiB stay in the balancer's memory, 2 MiB in total. Default: false. Example: true"""

    max_seconds: Annotated[int, Field(ge=1, le=600, json_schema_extra={"format": "int32"})] = 60
    """Maximum time for which a new replica computes beginnings before it gets requests, in seconds,
    1 to 600. A queued request ends it at once. Default: 60. Example: 20"""


RULES = (
    Rule(
        "!has(self.prime) || !has(self.embeddings)",
        "prime must not be set with embeddings: their inputs are not kept in a slot. Remove prime",
        lambda spec: spec.prime is None or spec.embeddings is None,
    ),
)
"""Rules across fields of LlamaServerSpec."""
