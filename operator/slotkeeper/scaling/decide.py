"""How many replicas demand asks for, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slotkeeper.scaling.behavior import scale_down_limit, scale_up_limit
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.queueing import drain_time
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample


class ScalingReason(StrEnum):
    """Why a decision is what it is."""

    DEMAND_ABOVE_CAPACITY = "DemandAboveCapacity"
    """Those that wait, or the next one to come, would wait too long, or the mean demand fills more
    of the slots than targetSlotUtilization."""
    QUEUE_WAIT_ABOVE_TARGET = "QueueWaitAboveTarget"
    """At the mean demand a request is expected to wait longer than maxWaitSeconds."""
    AT_MAX_REPLICAS = "AtMaxReplicas"
    """More replicas are asked for than maxReplicas, and all of those are there."""
    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    """As many replicas are asked for as there are."""
    STABILIZING = "Stabilizing"
    """Another number is asked for, but has not been for long enough."""
    DEMAND_BELOW_TARGET = "DemandBelowTarget"
    """Fewer replicas have been enough for all of behavior.scaleDown.stabilizationWindowSeconds."""
    IDLE = "Idle"
    """There was no request for idleSeconds."""
    RATE_LIMITED = "RateLimited"
    """Another number is asked for, but the policies of behavior do not allow it now."""
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    """The balancer has said nothing, or nothing lately: the number stays."""
    OUT_OF_BOUNDS = "OutOfBounds"
    """There were more or fewer replicas than minReplicas and maxReplicas allow."""


@dataclass(frozen=True)
class Decision:
    """How many replicas there should be."""

    replicas: int
    reason: ScalingReason
    message: str
    """The numbers behind it, such as `busy 4/4, waiting 5, oldest 3.2 s, last for 9.1 s more: 1 ->
    2`: the last of those five gets a slot in 9.1 s, as things are."""
    has_metrics: bool = True
    """Whether the balancer's numbers had a say in it."""


@dataclass(frozen=True)
class ScalingInput:
    """What a decision is made of."""

    sample: Sample | None = None
    """The last look at the balancer."""
    history: History = History()  # noqa: RUF009 (frozen)
    """What each look has asked for, the newest one's included."""
    changes: Sequence[Change] = ()
    """What earlier decisions have changed."""


def decide(policy: Policy, known: ScalingInput, *, current: int, now: float) -> Decision:
    """Say how many replicas there should be: up at once, down once fewer were enough for long.

    What a look asks for is the fewest replicas with which the last of those that wait now, and the
    next one to come, gets a slot within maxWaitSeconds, whose slots the mean demand fills up to
    targetSlotUtilization at most, and with which a request at that demand waits for maxWaitSeconds
    at most on average. A slot for each request is asked for where nobody knows how long requests
    keep theirs, and where one has waited for longer already. It comes once all looks of
    behavior.scaleUp's window have asked for so many; fewer come once none of behavior.scaleDown's
    has asked for more, and what is busy now fits, too.

    `current` is how many replicas there are, ready or not: those that load are counted as coming.
    What follows is for 4 slots a replica, of which one is ready, and a look each second; `6 of 9 s
    each, oldest 3 s` is a demand of 6 where a request keeps its slot for 9 s and the first of those
    that wait has waited for 3 s. The mean is that of what is said.

    With `{maxReplicas: 3, behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}`:

    | replicas | demand                                         | wants | reason              |
    |----------|------------------------------------------------|-------|---------------------|
    | 1        | 3 for 90 s                                     | 1     | DesiredWithinRange  |
    | 1        | 3 for 90 s, then 4                             | 1     | DesiredWithinRange  |
    | 1        | 3 for 90 s, then 5                             | 2     | DemandAboveCapacity |
    | 1        | 4 for 90 s                                     | 2     | DemandAboveCapacity |
    | 2        | 6 for 90 s                                     | 2     | DesiredWithinRange  |
    | 1        | 0 for 90 s, then 40                            | 3     | DemandAboveCapacity |
    | 3        | 9 for 90 s                                     | 3     | DesiredWithinRange  |
    | 3        | 40 for 90 s                                    | 3     | AtMaxReplicas       |
    | 2        | 3 for 90 s, then 5, then 3 for 59 s            | 2     | Stabilizing         |
    | 2        | 3 for 90 s, then 5, then 3 for 60 s            | 1     | DemandBelowTarget   |
    | 2        | 3 for 90 s, then 4                             | 2     | Stabilizing         |
    | 3        | 5 for 90 s, then 0 for 30 s                    | 2     | DemandBelowTarget   |
    | 3        | 0 for 90 s                                     | 1     | DemandBelowTarget   |
    | 2        | 0 for 90 s, then 9, then 0                     | 2     | Stabilizing         |
    | 2        | 0                                              | 2     | Stabilizing         |
    | 2        | 0 for 40 s, then none for 9 s, then 0 for 40 s | 2     | Stabilizing         |
    | 2        | none                                           | 2     | MetricsUnavailable  |
    | 2        | 0 for 90 s, then none for 9 s                  | 2     | MetricsUnavailable  |
    | 1        | 9 for 90 s, then none for 9 s                  | 1     | MetricsUnavailable  |
    | 0        | none                                           | 1     | OutOfBounds         |
    | 5        | none                                           | 3     | OutOfBounds         |
    | 5        | 9 for 90 s                                     | 3     | OutOfBounds         |
    | 0        | 5                                              | 2     | DemandAboveCapacity |

    With `{maxReplicas: 4, targetSlotUtilization: 100, maxWaitSeconds: 2}`:

    | replicas | demand                                     | wants | reason               |
    |----------|--------------------------------------------|-------|----------------------|
    | 1        | 4 for 90 s                                 | 1     | DesiredWithinRange   |
    | 1        | 4 for 90 s, then 5                         | 2     | DemandAboveCapacity  |
    | 1        | 2 of 10 s each                             | 1     | DesiredWithinRange   |
    | 1        | 3 of 10 s each                             | 2     | QueueWaitAboveTarget |
    | 1        | 3 of 1 s each                              | 1     | DesiredWithinRange   |
    | 2        | 6 of 10 s each                             | 2     | DesiredWithinRange   |
    | 2        | 7 of 10 s each                             | 3     | QueueWaitAboveTarget |
    | 3        | 6 of 10 s each for 400 s                   | 2     | DemandBelowTarget    |
    | 3        | 2 of 1 s each for 299 s                    | 3     | Stabilizing          |
    | 3        | 2 of 1 s each for 300 s                    | 1     | DemandBelowTarget    |
    | 4        | 30 of 10 s each                            | 4     | AtMaxReplicas        |
    | 1        | 0 for 90 s, then 5 of 6 s each             | 1     | DesiredWithinRange   |
    | 1        | 0 for 90 s, then 6 of 6 s each             | 2     | DemandAboveCapacity  |
    | 1        | 0 for 90 s, then 5 of 6 s each, oldest 2 s | 1     | DesiredWithinRange   |
    | 1        | 0 for 90 s, then 5 of 6 s each, oldest 3 s | 2     | DemandAboveCapacity  |
    | 1        | 0 for 90 s, then 12 of 1 s each            | 1     | DesiredWithinRange   |
    | 1        | 0 for 90 s, then 4 of 9 s each             | 1     | DesiredWithinRange   |
    | 1        | 1 for 90 s, then 4 of 6 s each             | 1     | DesiredWithinRange   |
    | 1        | 1 for 90 s, then 4 of 9 s each             | 2     | DemandAboveCapacity  |
    | 1        | 0 for 90 s, then 12                        | 3     | DemandAboveCapacity  |
    | 1        | 0 for 90 s, then 12 of 6 s each            | 3     | DemandAboveCapacity  |
    | 1        | 0 for 90 s, then 9 of 6 s each             | 2     | DemandAboveCapacity  |
    | 0        | 0 for 90 s, then 9 of 6 s each             | 2     | DemandAboveCapacity  |

    With `{minReplicas: 0, maxReplicas: 3, idleSeconds: 20}`:

    | replicas | demand                                        | wants | reason              |
    |----------|-----------------------------------------------|-------|---------------------|
    | 0        | 0 for 90 s                                    | 0     | DesiredWithinRange  |
    | 0        | 0 for 90 s, then 1                            | 1     | DemandAboveCapacity |
    | 0        | 0 of 9 s each                                 | 0     | DesiredWithinRange  |
    | 0        | 9                                             | 3     | DemandAboveCapacity |
    | 0        | none                                          | 0     | MetricsUnavailable  |
    | 1        | none                                          | 1     | MetricsUnavailable  |
    | 1        | 0                                             | 1     | Stabilizing         |
    | 1        | 1 for 90 s, then 0 for 19 s                   | 1     | Stabilizing         |
    | 1        | 1 for 90 s, then 0 for 20 s                   | 0     | Idle                |
    | 3        | 9 for 90 s, then 0 of 9 s each for 20 s       | 0     | Idle                |
    | 1        | 0 for 19 s, then none for 9 s, then 0 for 9 s | 1     | Stabilizing         |
    | 1        | 0 for 19 s, then 1                            | 1     | DesiredWithinRange  |
    | 3        | 1 for 300 s                                   | 1     | DemandBelowTarget   |

    With `{maxReplicas: 9, behavior: {scaleUp: {stabilizationWindowSeconds: 30, policies: [{type:
    Pods, value: 2, periodSeconds: 60}]}, scaleDown: {selectPolicy: Disabled}}}`:

    | replicas | demand                                       | wants | reason              |
    |----------|----------------------------------------------|-------|---------------------|
    | 1        | 0 for 90 s, then 40 for 29 s                 | 1     | Stabilizing         |
    | 1        | 0 for 90 s, then 40 for 30 s                 | 3     | DemandAboveCapacity |
    | 1        | 0 for 90 s, then 5 for 9 s, then 40 for 29 s | 2     | DemandAboveCapacity |
    | 3        | 0 for 400 s                                  | 3     | RateLimited         |
    """
    newest = known.sample
    spec = policy.spec
    if newest is None or now - newest.at > PEAK_WINDOW_SECONDS:
        held = policy.clamp(current)
        reason = (
            ScalingReason.METRICS_UNAVAILABLE if held == current else ScalingReason.OUT_OF_BOUNDS
        )
        bounds = _bounds(policy) if reason is ScalingReason.OUT_OF_BOUNDS else ""
        message = f"no numbers from the balancer{bounds}: {_change(current, held)}"
        return Decision(held, reason, message, has_metrics=False)
    asked = policy.required_replicas(newest)
    behavior = spec.behavior
    numbers = _numbers(newest, total=policy.slots * current)
    if current and _is_idle(policy, known, now):
        numbers += f", idle for {policy.idle_seconds} s"
        return Decision(0, ScalingReason.IDLE, f"{numbers}: {_change(current, 0)}")
    # One replica of a server that may have none is not taken by what follows, and comes at once.
    least = spec.min_replicas or int(current > 0 or asked > 0)
    held = policy.clamp(current, least=least)
    wanted = policy.clamp(_stable(policy, known, asked, held, now), least=least)
    # However few are enough on average: they must be enough now, too.
    wanted = max(wanted, min(policy.at_utilization(newest.demand), held))
    if wanted >= held:
        limit = scale_up_limit(behavior.scale_up, known.changes, current=current, now=now)
        replicas = wanted if limit is None else max(held, min(wanted, limit))
    else:
        limit = scale_down_limit(behavior.scale_down, known.changes, current=current, now=now)
        replicas = min(held, max(wanted, limit))
    if replicas > held or (replicas > current and not spec.min_replicas):
        others = max(policy.for_demand(newest), policy.for_mean_demand(newest))
        reason = (
            ScalingReason.QUEUE_WAIT_ABOVE_TARGET
            if policy.for_queue_wait(newest) > others
            else ScalingReason.DEMAND_ABOVE_CAPACITY
        )
    elif replicas < held:
        reason = ScalingReason.DEMAND_BELOW_TARGET
    elif held != current:
        reason = ScalingReason.OUT_OF_BOUNDS
    elif wanted != held:
        reason = ScalingReason.RATE_LIMITED
    elif policy.clamp(asked) != held:
        reason = ScalingReason.STABILIZING
    else:
        reason = (
            ScalingReason.AT_MAX_REPLICAS
            if asked > spec.max_replicas
            else ScalingReason.DESIRED_WITHIN_RANGE
        )
    numbers += _details(policy, newest, reason, total=policy.slots * current)
    if replicas != wanted:
        numbers += f", {wanted} wanted, which behavior does not allow yet"
    return Decision(replicas, reason, f"{numbers}: {_change(current, replicas)}")


def _is_idle(policy: Policy, known: ScalingInput, now: float) -> bool:
    if policy.spec.min_replicas or policy.spec.behavior.scale_down.select_policy == "Disabled":
        return False
    return known.history.max_since(now - policy.idle_seconds) == 0


def _stable(policy: Policy, known: ScalingInput, asked: int, held: int, now: float) -> int:
    """What is asked for now, as far as it was asked for all through the windows of behavior."""
    window = policy.spec.behavior.scale_up.stabilization_window_seconds
    least = known.history.min_since(now - window)
    up = asked if least is None else min(asked, least)
    most = known.history.max_since(now - policy.scale_down_window)
    down = held if most is None else max(asked, most)
    return min(max(held, up), max(down, up))


def _numbers(sample: Sample, *, total: int) -> str:
    numbers = f"busy {sample.busy_slots}/{total}, waiting {sample.queued}"
    if sample.queued:
        numbers += f", oldest {sample.oldest_queued_seconds:.1f} s"
    if sample.queued and sample.mean_service_seconds and sample.total_slots:
        more = drain_time(
            sample.busy_slots + sample.queued, sample.mean_service_seconds, sample.total_slots
        )
        numbers += f", last for {more:.1f} s more"
    if sample.peak_demand > sample.busy_slots + sample.queued:
        numbers += f", lately {sample.peak_demand}"
    return numbers


def _details(policy: Policy, sample: Sample, reason: ScalingReason, *, total: int) -> str:
    """What decided, where busy and waiting do not say it."""
    if reason is ScalingReason.QUEUE_WAIT_ABOVE_TARGET:
        late = f"they would wait for more than {policy.spec.max_wait_seconds} s"
        return f", {sample.load:.1f} on average for {sample.mean_service_seconds:.1f} s: {late}"
    if reason is ScalingReason.DEMAND_ABOVE_CAPACITY and policy.for_mean_demand(
        sample
    ) > policy.for_demand(sample):
        target = policy.spec.target_slot_utilization
        return f", {sample.load:.1f} on average: above {target} % of {total} slots"
    if (
        reason is ScalingReason.DEMAND_ABOVE_CAPACITY
        and sample.mean_service_seconds
        and sample.total_slots
    ):
        may = policy.spec.max_wait_seconds
        last, following = (
            drain_time(sample.demand + more, sample.mean_service_seconds, sample.total_slots)
            for more in (0, 1)
        )
        if sample.oldest_queued_seconds <= may and last <= may < following:
            return f", the next one would wait for {following:.1f} s"
    if reason is ScalingReason.DEMAND_BELOW_TARGET:
        return f", fewer were enough for {policy.scale_down_window:g} s"
    return (
        _bounds(policy)
        if reason in {ScalingReason.OUT_OF_BOUNDS, ScalingReason.AT_MAX_REPLICAS}
        else ""
    )


def _bounds(policy: Policy) -> str:
    if policy.schedule is None:
        return ""
    cron = policy.schedule.cron
    zone = policy.schedule.time_zone
    return f", {policy.spec.min_replicas} to {policy.spec.max_replicas} since {cron} ({zone})"


def _change(current: int, replicas: int) -> str:
    return f"{current} stays" if replicas == current else f"{current} -> {replicas}"
