"""Default sampling parameters of requests: `spec.sampling`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.validation import ApiModel, Rule

Penalty = Annotated[float, Field(ge=-2, le=2)]


class Sampling(ApiModel):
    """Default sampling parameters, for requests without them. A parameter that is not set has the
    value in the model's file, or else llama-server's."""

    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """Randomness of the responses, 0 to 10. 0: always the most probable token. Default: the
    model's, or else 0.8. Example: 0.7"""

    top_k: (
        Annotated[int, Field(ge=0, le=1_000_000, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Only the topK most probable tokens are candidates, 0 to 1000000. 0: all tokens.
    Default: the model's, or else 40. Example: 20"""

    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only the most probable tokens whose probabilities add up to topP are candidates, 0 to 1.
    1: all tokens. Default: the model's, or else 0.95. Example: 0.8"""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens that are at least minP times as probable as the most probable one are candidates,
    0 to 1. 0: all tokens. Default: the model's, or else 0.05. Example: 0"""

    repeat_penalty: (
        Annotated[
            float,
            Field(le=10),
            # Not as a minimum: the API server rounds that to 0 for a value without decimals.
            Rule(
                "double(self) >= 0.01",
                "must be from 0.01 to 10: llama-server divides by it",
                lambda penalty: penalty >= 0.01,
            ),
        ]
        | None
    ) = None
    """Penalty of tokens that are among the last repeatLastN ones, 0.01 to 10: the higher, the less
    probable. 1: none. Default: the model's, or else 1. Example: 1.1"""

    repeat_last_n: (
        Annotated[int, Field(ge=0, le=1_000_000, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Number of tokens that the three penalties consider, 0 to 1000000. 0: no penalties.
    Default: the model's, or else 64. Example: 256"""

    presence_penalty: Penalty | None = None
    """Penalty of tokens that are among the last ones, -2 to 2. 0: none. Default: 0. Example: 1.5"""

    frequency_penalty: Penalty | None = None
    """Penalty of tokens for each time that they are among the last ones, -2 to 2. 0: none.
    Default: 0. Example: 0.5"""

    seed: (
        Annotated[int, Field(ge=0, le=4_294_967_294, json_schema_extra={"format": "int64"})] | None
    ) = None
    """Seed of the random numbers, 0 to 4294967294. With it, equal requests get equal responses, as
    far as llama-server computes them equally. Default: another one for each request. Example: 42"""


RULES = (
    Rule(
        "!has(self.sampling) || !has(self.embeddings)",
        "sampling must not be set with embeddings: no text is generated. Remove sampling",
        lambda spec: spec.sampling is None or spec.embeddings is None,
    ),
)
"""Rules across fields of LlamaServerSpec."""
