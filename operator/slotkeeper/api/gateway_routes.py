"""Requests that another model serves: `spec.fallbacks`, `spec.routes`, `spec.shadow`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from slotkeeper.api.gateway_backends import unique_by
from slotkeeper.api.model import ModelName
from slotkeeper.api.validation import ApiModel, Rule

MAX_FALLBACKS = 64
MAX_ROUTES = 64
MAX_SHADOWS = 16

_INT32 = {"format": "int32"}

Case = Annotated[
    Literal["Full", "Failed", "Timeout", "Waking"], Field(json_schema_extra={"maxLength": 7})
]

Weight = Annotated[int, Field(ge=0, le=1000, json_schema_extra=_INT32)]


def _once(items: list[Any]) -> list[Any]:
    if len(set(items)) != len(items):
        raise ValueError("must not contain an item twice")
    return items


SET = (Field(json_schema_extra={"x-kubernetes-list-type": "set"}), AfterValidator(_once))


class Fallback(ApiModel):
    """Models that serve requests in place of another one."""

    rules: ClassVar = (
        Rule(
            "!(self.model in self.to)",
            "to must not contain the model itself",
            lambda fallback: fallback.model not in fallback.to,
        ),
    )

    model: ModelName
    """Model of a LlamaServer or of an external backend, or the name of a route. Example: qwen"""

    to: Annotated[list[ModelName], Field(min_length=1, max_length=8), *SET]
    """Models or aliases that are tried in this order, 1 to 8. Their own fallbacks do not apply.
    Example: [gpt-4o]"""

    # Not `on`: in YAML 1.1, which kubectl reads, that is the boolean true.
    when: Annotated[list[Case], Field(min_length=1, max_length=4), *SET] = Field(
        default=["Full", "Failed", "Timeout"]
    )
    """Cases in which they are tried. Full: the server rejects the request because its queue is full
    or no slot became free in time. Failed: it cannot be reached, fails before the first byte of a
    response, or is known to have failed. Timeout: it has not responded in time. Waking: it has no
    ready replica; one is started nevertheless, for later requests.
    Default: [Full, Failed, Timeout]. Example: [Full, Failed, Timeout, Waking]"""


class WeightedModel(ApiModel):
    """A model with its share of a route's requests."""

    model: ModelName
    """Model of a LlamaServer or of an external backend, or an alias. Example: qwen-next"""

    weight: Weight
    """Share of the requests, in relation to the weights of the others, 0 to 1000. Example: 10"""


class Route(ApiModel):
    """A name for several models."""

    rules: ClassVar = (
        Rule(
            "self.targets.exists(target, target.weight > 0)",
            "targets must contain one with a weight above 0",
            lambda route: any(target.weight > 0 for target in route.targets),
        ),
    )

    name: ModelName
    """Name for requests. It comes before an alias or a model of the same name. Example: chat"""

    targets: Annotated[
        list[WeightedModel],
        Field(min_length=1, max_length=8),
        *unique_by("model"),
    ]
    """Models with weights, 1 to 8. All requests of a conversation go to the same one. To move
    conversations from one to another step by step, increase the weight of the last one.
    Example: [{model: qwen, weight: 90}, {model: qwen-next, weight: 10}]"""


class Shadow(ApiModel):
    """Copies of the requests for a model, which another one processes to be compared."""

    rules: ClassVar = (
        Rule(
            "self.model != self.to",
            "to must not be the model itself",
            lambda shadow: shadow.model != shadow.to,
        ),
    )

    model: ModelName
    """Model of a LlamaServer or of an external backend. Example: qwen"""

    to: ModelName
    """Model of a LlamaServer, or an alias of one. It gets a copy of a request only if it has an
    idle slot; the response is not used. Example: qwen-next"""

    percent: Annotated[int, Field(ge=1, le=100, json_schema_extra=_INT32)]
    """Share of the requests, 1 to 100. Example: 10"""


Fallbacks = Annotated[list[Fallback], Field(max_length=MAX_FALLBACKS), *unique_by("model")]

Routes = Annotated[list[Route], Field(max_length=MAX_ROUTES), *unique_by("name")]

Shadows = Annotated[list[Shadow], Field(max_length=MAX_SHADOWS), *unique_by("model")]
