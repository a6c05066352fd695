"""Speculative decoding: `spec.speculative`."""

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.model import NO_SHA256_IN_IMAGE, FileUrl, Sha256
from slotkeeper.api.validation import ApiModel, Rule

SIMPLE: Final = "draft-simple"

Type = Annotated[
    Literal[
        "draft-simple",
        "draft-eagle3",
        "draft-mtp",
        "draft-dflash",
        "draft-dspark",
        "ngram-simple",
        "ngram-map-k",
        "ngram-map-k4v",
        "ngram-mod",
        "ngram-cache",
    ],
    Field(json_schema_extra={"maxLength": 13}),
]


class Draft(ApiModel):
    """Draft model: a small GGUF file, made for exactly this model or with its vocabulary."""

    rules: ClassVar = (NO_SHA256_IN_IMAGE,)

    url: FileUrl
    """URL of the GGUF file, of the same kinds as that of the model.
    Example: https://example.com/draft.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 hexadecimal digits. Default: not verified.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    gpu_layers: (
        Annotated[int, Field(ge=0, le=998, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Number of the draft's layers on the GPUs, 0 to 998. Default: all. Example: 0"""


class Speculative(ApiModel):
    """Speculative decoding: several next tokens are guessed cheaply, and the model verifies them in
    one step. Responses are as likely as without it."""

    rules: ClassVar = (
        Rule(
            "!self.type.startsWith('ngram-') || !has(self.draft)",
            "draft must not be set with an ngram type, which guesses from the text so far",
            lambda speculative: not speculative.is_ngram or speculative.draft is None,
        ),
        Rule(
            "self.type.startsWith('ngram-') || self.type == 'draft-mtp' || has(self.draft)",
            "must have a draft with this type. Set draft.url, or an ngram type, which needs none",
            lambda speculative: (
                speculative.is_ngram
                or speculative.type == "draft-mtp"
                or speculative.draft is not None
            ),
        ),
        Rule(
            "!has(self.minProbability) || !self.type.startsWith('ngram-')",
            "minProbability must not be set with an ngram type, which has no probabilities",
            lambda speculative: speculative.min_probability is None or not speculative.is_ngram,
        ),
        Rule(
            "!has(self.maxTokens) || self.type != 'ngram-cache'",
            "maxTokens must not be set with ngram-cache, which guesses up to 8 tokens",
            lambda speculative: speculative.max_tokens is None or speculative.type != "ngram-cache",
        ),
    )

    type: Type = SIMPLE
    """How tokens are guessed. draft-simple: by a small model of the same vocabulary. draft-eagle3,
    draft-mtp, draft-dflash and draft-dspark: by layers that were trained for this model, in the
    file of draft; those of draft-mtp may also be in the model's own file. ngram-simple,
    ngram-map-k, ngram-map-k4v, ngram-mod and ngram-cache: from repetitions in the text so far,
    without a draft; for code and for answers that quote the prompt.
    Default: draft-simple. Example: ngram-mod"""

    draft: Draft | None = None
    """The draft model. It is downloaded and verified as the model is, and takes memory of the same
    GPUs. Default: none. Example: {url: "https://example.com/draft.gguf"}"""

    max_tokens: (
        Annotated[int, Field(ge=1, le=1024, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Maximum number of tokens that are guessed at once, 1 to 1024. More pay off if most of them
    are right: see status.speculative. Default: llama-server's, which is 3 with a draft, 48 with
    ngram types and 64 with ngram-mod. Example: 8"""

    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """Probability below which the draft guesses no further, 0 to 1. Default: 0. Example: 0.75"""

    @property
    def is_ngram(self) -> bool:
        """Whether tokens are guessed from the text alone, without a state of their own."""
        return self.type.startswith("ngram-")


_HAS_DRAFT = "has(self.speculative) && has(self.speculative.draft)"


def _draft(spec: Any) -> Draft | None:
    return spec.speculative.draft if spec.speculative else None


def _is_safe_for_token(spec: Any) -> bool:
    draft, token = _draft(spec), spec.model.token_secret_ref
    if draft is None or token is None or not draft.url.startswith("http://"):
        return True
    return token.allow_http and re.fullmatch(HTTP_URL, draft.url) is not None


RULES = (
    Rule(
        "!has(self.speculative) || !has(self.embeddings)",
        "speculative must not be set with embeddings: no text is generated. Remove speculative",
        lambda spec: spec.speculative is None or spec.embeddings is None,
    ),
    Rule(
        f"!({_HAS_DRAFT}) || !has(self.workers)",
        "speculative.draft must not be set with workers: each token of the draft would cross the "
        "network between the pods. Set an ngram type instead",
        lambda spec: _draft(spec) is None or spec.workers is None,
    ),
    Rule(
        f"!({_HAS_DRAFT}) || !has(self.speculative.draft.gpuLayers) || self.gpu.count > 0",
        "speculative.draft.gpuLayers must not be set if gpu.count is 0: it requires a GPU",
        lambda spec: (
            (draft := _draft(spec)) is None or draft.gpu_layers is None or spec.gpu.count > 0
        ),
    ),
    Rule(
        "!has(self.speculative) || !has(self.promptCache) || "
        "self.speculative.type.startsWith('ngram-')",
        "promptCache must not be set with a draft: not every build of llama-server saves the "
        "draft's state of a prompt, without which guesses after a restored prompt are wrong. Set "
        "an ngram type, or remove one of the two",
        lambda spec: (
            spec.speculative is None or spec.prompt_cache is None or spec.speculative.is_ngram
        ),
    ),
    Rule(
        f"!({_HAS_DRAFT}) || !has(self.model.tokenSecretRef) || "
        "!self.speculative.draft.url.startsWith('http://') || "
        "self.model.tokenSecretRef.allowHttp && "
        f"self.speculative.draft.url.matches(r'^(?:{HTTP_URL})$')",
        "speculative.draft.url must be an https:// URL with model.tokenSecretRef, because others "
        "can read a token in http://. For hosts of the cluster, which end with .svc or "
        ".svc.cluster.local, set model.tokenSecretRef.allowHttp",
        _is_safe_for_token,
    ),
)
"""Rules across fields of LlamaServerSpec."""
