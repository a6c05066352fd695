"""Resource requests and limits, as those of a container."""

import re
from typing import Annotated, ClassVar

from pydantic import Field, StrictInt, StrictStr, WithJsonSchema

from slotkeeper.api import quantity
from slotkeeper.api.validation import ApiModel, Rule

_SCHEMA = WithJsonSchema(
    {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "maxLength": 32,
    }
)


def _is_quantity(examples: str) -> Rule:
    return Rule(
        f"string(self).matches(r'^(?:{quantity.PATTERN})$')",
        f"must be a quantity such as {examples}",
        lambda value: (
            len(str(value)) <= 32
            and re.fullmatch(quantity.PATTERN, str(value), re.ASCII) is not None
        ),
    )


Quantity = Annotated[StrictInt | StrictStr, _SCHEMA, _is_quantity("500m, 2 or 4Gi")]

ByteSize = Annotated[StrictInt | StrictStr, _SCHEMA, _is_quantity("512Mi or 16Gi")]
"""Of memory or of a disk."""


def within(low: str, high: str) -> Rule:
    """Return the rule that a ByteSize is from `low` to `high`."""
    least, most = quantity.parse(low), quantity.parse(high)
    return Rule(
        f"quantity(string(self)).compareTo(quantity('{low}')) >= 0 && "
        f"quantity(string(self)).compareTo(quantity('{high}')) <= 0",
        # A number without a unit is in bytes: most likely the unit was forgotten.
        f"must be from {low} to {high}: write the unit, as in 16Gi",
        lambda size: least <= quantity.parse(size) <= most,
    )


DiskSize = Annotated[ByteSize, within("1Mi", "16Ti")]

_RESOURCE_NAME = "cpu|memory|ephemeral-storage|hugepages-.+|[^/]+/[^/]+"

Quantities = Annotated[
    dict[str, Quantity],
    Field(max_length=16),
    Rule(
        f"self.all(name, name.matches(r'^(?:{_RESOURCE_NAME})$'))",
        "must have only cpu, memory, ephemeral-storage, hugepages-SIZE and resources with a "
        "domain, such as example.com/card",
        lambda quantities: all(re.fullmatch(_RESOURCE_NAME, name) for name in quantities),
    ),
    Rule(
        "!('memory' in self) || quantity(string(self['memory'])).compareTo(quantity('1Mi')) >= 0",
        "memory must be at least 1Mi: the suffix m means thousandths of a byte; instead of 512m, "
        "did you mean 512Mi?",
        lambda quantities: quantity.parse(quantities.get("memory", "1Mi")) >= 1024**2,
    ),
]


def _at_most_limit(name: str) -> Rule:
    """The rule for one resource, which the message names."""
    return Rule(
        f"!has(self.requests) || !has(self.limits) || !('{name}' in self.requests) || "
        f"!('{name}' in self.limits) || quantity(string(self.requests['{name}']))"
        f".compareTo(quantity(string(self.limits['{name}']))) <= 0",
        f"requests.{name} must be at most limits.{name}",
        lambda resources: _exceeding(resources).isdisjoint({name}),
    )


def _exceeding(resources: "Resources") -> set[str]:
    return {
        name
        for name, request in resources.requests.items()
        if name in resources.limits
        and quantity.parse(request) > quantity.parse(resources.limits[name])
    }


class Resources(ApiModel):
    """Resource requests and limits, as those of a container."""

    rules: ClassVar = (
        _at_most_limit("cpu"),
        _at_most_limit("memory"),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, "
            "name == 'cpu' || name == 'memory' || !(name in self.limits) || "
            "quantity(string(self.requests[name]))"
            ".compareTo(quantity(string(self.limits[name]))) <= 0)",
            "requests must be at most limits, also of resources other than cpu and memory",
            lambda resources: _exceeding(resources) <= {"cpu", "memory"},
        ),
    )

    requests: Quantities = Field(default_factory=dict)
    """Amount of each resource that is reserved on the node. Example: {cpu: 2, memory: 8Gi}"""

    limits: Quantities = Field(default_factory=dict)
    """Maximum amount of each resource. Example: {memory: 16Gi}"""
