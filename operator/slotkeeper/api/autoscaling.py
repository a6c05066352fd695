"""How many replicas run, as a user bounds it in `spec.autoscaling`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api.rules import Rule, Struct

MAX_REPLICAS = 1000

Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS, json_schema_extra={"format": "int32"})]


class Autoscaling(Struct):
    """Bounds for the number of replicas, which then follows demand: busy slots and waiting
    requests."""

    rules: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "maxReplicas must be at least minReplicas",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
    )

    min_replicas: Annotated[Replicas, Field(ge=1)] = 1
    """Replicas that run with no demand at all, at least 1. Default: 1."""

    max_replicas: Annotated[Replicas, Field(ge=1)]
    """Replicas that run at most, however many requests wait. Example: 4"""
