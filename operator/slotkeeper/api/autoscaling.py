"""How many replicas run, as a user bounds it in `spec.autoscaling`."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from slotkeeper.api.cron import CRON, ever_matches, goes_upward, known_zone
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_REPLICAS = 1000

_INT32 = {"format": "int32"}

Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS, json_schema_extra=_INT32)]

IDLE_SECONDS = 300
"""spec.autoscaling.idleSeconds where it is not said. A schema's default would stand beside
minReplicas 1 too, where it means nothing."""

Select = Annotated[Literal["Max", "Min", "Disabled"], Field(json_schema_extra={"maxLength": 8})]

Window = Annotated[int, Field(ge=0, le=3600, json_schema_extra=_INT32)]


_TO_ZERO = (
    "(self.minReplicas == 0 || "
    "(has(self.schedules) && self.schedules.exists(each, each.?minReplicas.orValue(1) == 0)))"
)


class ScalingPolicy(ApiModel):
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


class ScaleUp(ApiModel):
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


class ScaleDown(ApiModel):
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


class Behavior(ApiModel):
    """How fast the number of replicas follows demand, as a HorizontalPodAutoscaler of
    autoscaling/v2 has it."""

    scale_up: ScaleUp = ScaleUp()
    """How fast replicas come. Default: all at once. Example: {stabilizationWindowSeconds: 30}"""

    scale_down: ScaleDown = ScaleDown()
    """How fast replicas go. Default: once fewer have been enough for five minutes.
    Example: {stabilizationWindowSeconds: 60}"""


class Schedule(ApiModel):
    """Other bounds from a certain time on."""

    rules: ClassVar = (
        Rule(
            "has(self.minReplicas) || has(self.maxReplicas)",
            "set minReplicas, maxReplicas or both: a schedule that sets neither changes nothing",
            lambda schedule: (schedule.min_replicas, schedule.max_replicas) != (None, None),
        ),
    )

    cron: Annotated[
        str,
        Field(max_length=128),
        matches(
            CRON,
            "must be minute, hour, day of month, month and day of week, such as '0 8 * * MON-FRI'",
        ),
        goes_upward,
        ever_matches,
    ]
    """From when on the bounds hold: minute, hour, day of month, month and day of week, as in a
    CronJob. They hold until another of the schedules begins. Example: 0 8 * * MON-FRI"""

    time_zone: Annotated[str, Field(max_length=64), known_zone] = "Etc/UTC"
    """Time zone of cron, by its name in the IANA database. Where clocks are put forward, a time
    that is left out counts as the one after. Default: Etc/UTC. Example: Europe/Berlin"""

    min_replicas: Replicas | None = None
    """autoscaling.minReplicas from then on, 0 to 1000. Default: as autoscaling.minReplicas.
    Example: 4"""

    max_replicas: Annotated[Replicas, Field(ge=1)] | None = None
    """autoscaling.maxReplicas from then on, 1 to 1000. Default: as autoscaling.maxReplicas.
    Example: 12"""


class ReplicaRange(NamedTuple):
    """The fewest and the most replicas that there may be."""

    min_replicas: int
    max_replicas: int


class Autoscaling(ApiModel):
    """Bounds for the number of replicas, which then follows demand: busy slots and waiting
    requests."""

    rules: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "maxReplicas must be at least minReplicas",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
        Rule(
            "!has(self.schedules) || self.schedules.all(each, "
            "each.?minReplicas.orValue(self.minReplicas) <= "
            "each.?maxReplicas.orValue(self.maxReplicas))",
            "schedules must leave maxReplicas at least minReplicas: one that a schedule does not "
            "set is that of autoscaling",
            lambda scaling: all(
                bounds.min_replicas <= bounds.max_replicas for bounds in scaling.all_bounds()
            ),
        ),
        Rule(
            f"!has(self.idleSeconds) || {_TO_ZERO}",
            "idleSeconds is for minReplicas: 0, since without it the last replica never goes",
            lambda scaling: scaling.idle_seconds is None or scaling.may_be_zero,
        ),
        Rule(
            f"!({_TO_ZERO}) || self.?behavior.?scaleUp.?selectPolicy.orValue('Max') != 'Disabled'",
            "minReplicas must not be 0 where behavior.scaleUp.selectPolicy is Disabled: no replica "
            "could ever come",
            lambda scaling: (
                not scaling.may_be_zero or scaling.behavior.scale_up.select_policy != "Disabled"
            ),
        ),
    )

    min_replicas: Replicas = 1
    """Replicas that run with no demand at all, 0 to 1000. 0: after idleSeconds without a request
    the last one goes, and the next request waits in the balancer while one starts: see
    balancer.coldStartTimeoutSeconds. Default: 1. Example: 0"""

    max_replicas: Annotated[Replicas, Field(ge=1)]
    """Replicas that run at most, however many requests wait, 1 to 1000. Example: 4"""

    target_slot_utilization: Annotated[int, Field(ge=1, le=100, json_schema_extra=_INT32)] = 80
    """Percent of the slots, 1 to 100, that demand may take on average, over ten minutes, before a
    replica is added. What is left takes what comes at once and what comes while the next one loads.
    Those that find no slot, or would, may add one sooner: see maxWaitSeconds. Default: 80.
    Example: 60"""

    max_wait_seconds: Annotated[int, Field(ge=1, le=3600, json_schema_extra=_INT32)] = 5
    """Seconds, 1 to 3600, that a request may have to wait for a slot. Replicas are added at once
    where one that waits has waited for longer or, by how long requests have lately kept their
    slots, would, or where all slots are taken and the next one to come would: one that is served in
    two seconds needs no GPU that takes minutes to load. So they are where the demand of ten minutes
    lets requests wait longer on average. Before six requests have ended, each one that finds no
    slot counts as waiting too long. Default: 5, since people look away after ten and the answer is
    still to come. Example: 2"""

    idle_seconds: Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)] | None = None
    """Seconds without any request, 1 to 86400, after which no replica is left where minReplicas is
    0. Then behavior.scaleDown holds nothing back, unless it is Disabled. Default: 300.
    Example: 1800"""

    behavior: Behavior = Behavior()
    """How fast the number of replicas follows, with the fields of autoscaling/v2. Default: more
    come at once; they go when fewer have been enough for five minutes.
    Example: {scaleDown: {stabilizationWindowSeconds: 60}}"""

    schedules: Annotated[list[Schedule], Field(max_length=16)] = Field(default_factory=list)
    """Other bounds for known busy and quiet hours, up to 16: of those whose time has come, the last
    to come holds, and of two that come together the later in the list. Before the first of them
    has come, minReplicas and maxReplicas hold. Default: none.
    Example: [{cron: 0 8 * * MON-FRI, minReplicas: 4}, {cron: 0 19 * * MON-FRI, minReplicas: 0}]"""

    @property
    def may_be_zero(self) -> bool:
        """Whether a time may come with no replica at all."""
        return any(bounds.min_replicas == 0 for bounds in self.all_bounds())

    def all_bounds(self) -> Iterator[ReplicaRange]:
        """The bounds outside of all schedules, and those of each."""
        yield self.bounds(None)
        yield from map(self.bounds, self.schedules)

    def bounds(self, schedule: Schedule | None) -> ReplicaRange:
        """The bounds while this schedule holds, or (None) none does."""
        least = schedule.min_replicas if schedule else None
        most = schedule.max_replicas if schedule else None
        return ReplicaRange(
            self.min_replicas if least is None else least,
            self.max_replicas if most is None else most,
        )
