"""Autoscaling of the number of replicas: `spec.autoscaling`."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from slotkeeper.api.cron import CRON_PATTERN, ascending_ranges, existing_date, iana_time_zone
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_REPLICAS = 1000

_INT32 = {"format": "int32"}

Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS, json_schema_extra=_INT32)]

IDLE_SECONDS = 300
"""Default of spec.autoscaling.idleSeconds. Not a default of the schema: the API server would also
write it next to minReplicas 1, where it has no meaning."""

SelectPolicy = Annotated[
    Literal["Max", "Min", "Disabled"], Field(json_schema_extra={"maxLength": 8})
]

Window = Annotated[int, Field(ge=0, le=3600, json_schema_extra=_INT32)]


_TO_ZERO = (
    "(self.minReplicas == 0 || "
    "(has(self.schedules) && self.schedules.exists(each, each.?minReplicas.orValue(1) == 0)))"
)


class ScalingPolicy(ApiModel):
    """Limit of the change in the number of replicas within a period."""

    type: Annotated[Literal["Pods", "Percent"], Field(json_schema_extra={"maxLength": 7})]
    """Unit of value: Pods, which are replicas here, or Percent of the replicas at the beginning of
    the period. Example: Pods"""

    value: Annotated[int, Field(ge=1, le=1_000_000, json_schema_extra=_INT32)]
    """Maximum number or percentage of replicas that are added or removed within the period, 1 to
    1000000. Example: 4"""

    period_seconds: Annotated[int, Field(ge=1, le=1800, json_schema_extra=_INT32)]
    """Length of the period in seconds, 1 to 1800. Example: 60"""


Policies = Annotated[list[ScalingPolicy], Field(min_length=1, max_length=16)]


class ScaleUp(ApiModel):
    """Rate of scaling up."""

    stabilization_window_seconds: Window = 0
    """Seconds for which demand must have required more replicas, 0 to 3600. The smallest number
    required within this time is used. 0 scales up at once, because loading a model takes
    minutes anyway. Default: 0. Example: 30"""

    select_policy: SelectPolicy = "Max"
    """Policy that applies if there are several. Max: the one that allows the largest change. Min:
    the one that allows the smallest. Disabled: no scaling up. Default: Max. Example: Min"""

    policies: Policies | None = None
    """Limits of how fast replicas are added, 1 to 16 policies. The first replica after scale to
    zero is always added at once. Default: no limit.
    Example: [{type: Pods, value: 4, periodSeconds: 60}]"""


class ScaleDown(ApiModel):
    """Rate of scaling down."""

    stabilization_window_seconds: Window = 300
    """Seconds for which demand must have required fewer replicas, 0 to 3600. The largest number
    required within this time is used. Long, because a removed replica has to load its model again.
    Values below 5 count as 5. Default: 300. Example: 60"""

    select_policy: SelectPolicy = "Max"
    """Policy that applies if there are several. Max: the one that allows the largest change. Min:
    the one that allows the smallest. Disabled: no scaling down. Default: Max. Example: Disabled"""

    policies: Policies | None = None
    """Limits of how fast replicas are removed, 1 to 16 policies. Default: no limit.
    Example: [{type: Percent, value: 10, periodSeconds: 60}]"""


class Behavior(ApiModel):
    """Rate of scaling, with the fields of a HorizontalPodAutoscaler's behavior in
    autoscaling/v2."""

    scale_up: ScaleUp = ScaleUp()
    """Rate of scaling up. Default: at once, without a limit.
    Example: {stabilizationWindowSeconds: 30}"""

    scale_down: ScaleDown = ScaleDown()
    """Rate of scaling down. Default: without a limit, once fewer replicas have been enough for
    five minutes. Example: {stabilizationWindowSeconds: 60}"""


class Schedule(ApiModel):
    """Replica bounds that apply from certain times on."""

    rules: ClassVar = (
        Rule(
            "has(self.minReplicas) || has(self.maxReplicas)",
            "must set minReplicas, maxReplicas or both: a schedule without them has no effect",
            lambda schedule: (schedule.min_replicas, schedule.max_replicas) != (None, None),
        ),
    )

    cron: Annotated[
        str,
        Field(max_length=128),
        matches(
            CRON_PATTERN,
            "must be minute, hour, day of month, month and day of week, such as '0 8 * * MON-FRI'",
        ),
        ascending_ranges,
        existing_date,
    ]
    """Times at which the bounds begin to apply, in cron syntax as in a CronJob: minute, hour, day
    of month, month and day of week. The bounds apply until another schedule begins.
    Example: 0 8 * * MON-FRI"""

    time_zone: Annotated[str, Field(max_length=64), iana_time_zone] = "Etc/UTC"
    """Time zone of cron, a name in the IANA database. A time that is skipped when clocks are set
    forward counts as the next time that exists. Default: Etc/UTC. Example: Europe/Berlin"""

    min_replicas: Replicas | None = None
    """Minimum number of replicas during this schedule, 0 to 1000. Default:
    autoscaling.minReplicas. Example: 4"""

    max_replicas: Annotated[Replicas, Field(ge=1)] | None = None
    """Maximum number of replicas during this schedule, 1 to 1000. Default:
    autoscaling.maxReplicas. Example: 12"""


class ReplicaRange(NamedTuple):
    """Minimum and maximum number of replicas."""

    min_replicas: int
    max_replicas: int


class Autoscaling(ApiModel):
    """Bounds of the number of replicas, which follows demand: busy slots and queued requests."""

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
            "maxReplicas must be at least minReplicas during each of schedules: a schedule that "
            "does not set one of them uses that of autoscaling",
            lambda scaling: all(
                bounds.min_replicas <= bounds.max_replicas for bounds in scaling.all_bounds()
            ),
        ),
        Rule(
            f"!has(self.idleSeconds) || {_TO_ZERO}",
            "idleSeconds must not be set unless minReplicas is 0: the last replica is never "
            "removed otherwise",
            lambda scaling: scaling.idle_seconds is None or scaling.may_be_zero,
        ),
        Rule(
            f"!({_TO_ZERO}) || self.?behavior.?scaleUp.?selectPolicy.orValue('Max') != 'Disabled'",
            "minReplicas must not be 0 if behavior.scaleUp.selectPolicy is Disabled: no replica "
            "could ever start",
            lambda scaling: (
                not scaling.may_be_zero or scaling.behavior.scale_up.select_policy != "Disabled"
            ),
        ),
    )

    min_replicas: Replicas = 1
    """Minimum number of replicas, 0 to 1000. With 0 the last replica is removed after idleSeconds
    without a request, and the next request is queued in the balancer while a replica starts: see
    balancer.coldStartTimeoutSeconds. Default: 1. Example: 0"""

    max_replicas: Annotated[Replicas, Field(ge=1)]
    """Maximum number of replicas, however many requests are queued, 1 to 1000. Example: 4"""

    target_slot_utilization: Annotated[int, Field(ge=1, le=100, json_schema_extra=_INT32)] = 80
    """Percentage of the slots that the mean demand of ten minutes may occupy before a replica is
    added, 1 to 100. The remaining slots serve bursts, and demand that arrives while another replica
    loads. Requests that are or would be queued may add a replica earlier: see maxWaitSeconds.
    Default: 80. Example: 60"""

    max_wait_seconds: Annotated[int, Field(ge=1, le=3600, json_schema_extra=_INT32)] = 5
    """Longest acceptable time in the queue in seconds, 1 to 3600. Replicas are added at once when a
    queued request has waited longer, or is predicted to by recent service times, or when all slots
    are busy and the next request is predicted to. A request that is served within this time needs
    no GPU that takes minutes to load. Replicas are also added when the mean queue wait is longer at
    the mean demand of ten minutes. Until six requests have completed, each queued request counts
    as queued for too long. Default: 5, because few users wait for more than ten seconds, and the
    response has yet to be generated. Example: 2"""

    idle_seconds: Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)] | None = None
    """Seconds without any request after which all replicas are removed if minReplicas is 0, 1 to
    86400. behavior.scaleDown does not delay this; only its selectPolicy Disabled prevents it.
    Default: 300. Example: 1800"""

    behavior: Behavior = Behavior()
    """Rate of scaling, with the fields of autoscaling/v2. Default: replicas are added at once, and
    removed once fewer have been enough for five minutes.
    Example: {scaleDown: {stabilizationWindowSeconds: 60}}"""

    schedules: Annotated[list[Schedule], Field(max_length=16)] = Field(default_factory=list)
    """Other bounds for known busy and quiet hours, up to 16 schedules. The schedule that began last
    applies; of two that begin at the same time, the later one in the list. Before any of them has
    begun, minReplicas and maxReplicas apply. Default: none.
    Example: [{cron: 0 8 * * MON-FRI, minReplicas: 4}, {cron: 0 19 * * MON-FRI, minReplicas: 0}]"""

    @property
    def may_be_zero(self) -> bool:
        """Whether the minimum is 0, always or during a schedule."""
        return any(bounds.min_replicas == 0 for bounds in self.all_bounds())

    def all_bounds(self) -> Iterator[ReplicaRange]:
        """The bounds outside of schedules, then those of each schedule."""
        yield self.bounds(None)
        yield from map(self.bounds, self.schedules)

    def bounds(self, schedule: Schedule | None) -> ReplicaRange:
        """Return the bounds during a schedule; None stands for no schedule."""
        minimum = schedule.min_replicas if schedule else None
        maximum = schedule.max_replicas if schedule else None
        return ReplicaRange(
            self.min_replicas if minimum is None else minimum,
            self.max_replicas if maximum is None else maximum,
        )
