"""How many replicas run, as a user bounds it in `spec.autoscaling`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slotkeeper.api.rules import Rule, Struct

MAX_REPLICAS = 1000

_INT32 = {"format": "int32"}

Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS, json_schema_extra=_INT32)]

IDLE_SECONDS = 300
"""spec.autoscaling.idleSeconds where it is not said. A schema's default would stand beside
minReplicas 1 too, where it means nothing."""

Select = Annotated[Literal["Max", "Min", "Disabled"], Field(json_schema_extra={"maxLength": 8})]

Window = Annotated[int, Field(ge=0, le=3600, json_schema_extra=_INT32)]


class ScalingPolicy(Struct):
    """A bound for how fast the number of replicas changes."""

    type: Annotated[Literal["Pods", "Percent"], Field(json_schema_extra={"maxLength": 7})]
    """What value counts: Pods, which are replicas here, or Percent of the replicas that there were
    when the period began. Example: Pods"""

    value: Annotated[int, Field(ge=1, le=1_000_000, json_schema_extra=_INT32)]
    """Replicas, or percent of them, that may come or go within the period, at least 1.
    Example: 4"""

    period_seconds: Annotated[int, Field(ge=1, le=1800, json_schema_extra=_INT32)]
    """Seconds that the change is counted over, 1 to 1800. Example: 60"""


Policies = Annotated[list[ScalingPolicy], Field(min_length=1, max_length=16)]


class ScaleUp(Struct):
    """How fast replicas come."""

    stabilization_window_seconds: Window = 0
    """Seconds, 0 to 3600, for which more replicas must have been asked for: as many come as were
    asked for all of that time. 0: at once, since a model takes long to load as it is. Default: 0.
    Example: 30"""

    select_policy: Select = "Max"
    """Which of several policies holds: Max, the one that lets most replicas come; Min, the one that
    lets fewest; Disabled: none ever comes. Default: Max. Example: Min"""

    policies: Policies | None = None
    """How many replicas may come in how long, up to 16 policies. The first replica after none
    always comes at once. Default: as many as are asked for.
    Example: [{type: Pods, value: 4, periodSeconds: 60}]"""


class ScaleDown(Struct):
    """How fast replicas go."""

    stabilization_window_seconds: Window = 300
    """Seconds, 0 to 3600, for which fewer replicas must have been asked for: the most that were
    asked for in that time stay. Long, since a model that was let go must be loaded again. Less than
    5 counts as 5. Default: 300. Example: 60"""

    select_policy: Select = "Max"
    """Which of several policies holds: Max, the one that lets most replicas go; Min, the one that
    lets fewest; Disabled: none ever goes. Default: Max. Example: Disabled"""

    policies: Policies | None = None
    """How many replicas may go in how long, up to 16 policies. Default: all that are too many.
    Example: [{type: Percent, value: 10, periodSeconds: 60}]"""


class Behavior(Struct):
    """How fast the number of replicas follows demand, as a HorizontalPodAutoscaler of
    autoscaling/v2 has it."""

    scale_up: ScaleUp = ScaleUp()
    """How fast replicas come. Default: all at once. Example: {stabilizationWindowSeconds: 30}"""

    scale_down: ScaleDown = ScaleDown()
    """How fast replicas go. Default: once fewer have been enough for five minutes.
    Example: {stabilizationWindowSeconds: 60}"""


class Autoscaling(Struct):
    """Bounds for the number of replicas, which then follows demand: busy slots and waiting
    requests."""

    rules: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "maxReplicas must be at least minReplicas",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
        Rule(
            "!has(self.idleSeconds) || self.minReplicas == 0",
            "idleSeconds is for minReplicas: 0, since without it the last replica never goes",
            lambda scaling: scaling.idle_seconds is None or scaling.min_replicas == 0,
        ),
        Rule(
            "self.minReplicas > 0 || "
            "self.?behavior.?scaleUp.?selectPolicy.orValue('Max') != 'Disabled'",
            "minReplicas must not be 0 where behavior.scaleUp.selectPolicy is Disabled: no replica "
            "could ever come",
            lambda scaling: (
                scaling.min_replicas > 0 or scaling.behavior.scale_up.select_policy != "Disabled"
            ),
        ),
    )

    min_replicas: Replicas = 1
    """Replicas that run with no demand at all, 0 to 1000. 0: after idleSeconds without a request
    the last one goes, and the next request waits in the balancer while one starts: see
    balancer.noReplicaTimeoutSeconds. Default: 1. Example: 0"""

    max_replicas: Annotated[Replicas, Field(ge=1)]
    """Replicas that run at most, however many requests wait, 1 to 1000. Example: 4"""

    target_slot_utilization: Annotated[int, Field(ge=1, le=100, json_schema_extra=_INT32)] = 80
    """Percent of the slots, 1 to 100, that demand may take before a replica is added. What is left
    takes the requests that come while the next one loads. 100 is the cheapest: one is added only
    when requests wait; best where a replica has a single slot. Default: 80. Example: 100"""

    max_wait_seconds: Annotated[int, Field(ge=1, le=3600, json_schema_extra=_INT32)] = 10
    """Seconds, 1 to 3600, that a request may have to wait for a slot on average; a replica is added
    where more is expected. It is computed from how many requests came in the last minute and how
    long each has lately kept its slot, so that it says nothing before some have ended. Default: 10,
    about as long as people look at an empty page. Example: 2"""

    idle_seconds: Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)] | None = None
    """Seconds without any request, 1 to 86400, after which no replica is left where minReplicas is
    0. Then behavior.scaleDown holds nothing back, unless it is Disabled. Default: 300.
    Example: 1800"""

    behavior: Behavior = Behavior()
    """How fast the number of replicas follows, with the fields of autoscaling/v2. Default: more
    come at once; they go when fewer have been enough for five minutes.
    Example: {scaleDown: {stabilizationWindowSeconds: 60}}"""
