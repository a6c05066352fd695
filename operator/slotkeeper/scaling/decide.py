"""The scaling decision: how many replicas demand requires, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slotkeeper.scaling.behavior import scale_down_limit, scale_up_limit
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.queueing import drain_time
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample


class ScalingReason(StrEnum):
    """The reason of a decision."""

    DEMAND_ABOVE_CAPACITY = "DemandAboveCapacity"
    """The last queued request or the next arrival would wait longer than maxWaitSeconds, or the
    mean demand is above targetSlotUtilization of the slots."""
    QUEUE_WAIT_ABOVE_TARGET = "QueueWaitAboveTarget"
    """At the mean demand, the expected wait of a request is longer than maxWaitSeconds."""
    AT_MAX_REPLICAS = "AtMaxReplicas"
    """More than maxReplicas are required, and there are maxReplicas."""
    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    """The current number of replicas is the required one."""
    STABILIZING = "Stabilizing"
    """Another number is required, but has not been for a whole stabilization window."""
    DEMAND_BELOW_TARGET = "DemandBelowTarget"
    """Fewer replicas were enough throughout behavior.scaleDown.stabilizationWindowSeconds."""
    IDLE = "Idle"
    """There was no request for idleSeconds."""
    RATE_LIMITED = "RateLimited"
    """Another number is required, but the policies of behavior do not allow it now."""
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    """The balancer has reported no metrics, or none recently: the number is unchanged."""
    OUT_OF_BOUNDS = "OutOfBounds"
    """There were more or fewer replicas than minReplicas and maxReplicas allow."""


@dataclass(frozen=True)
class Decision:
    """The desired number of replicas, with its reason."""

    replicas: int
    reason: ScalingReason
    message: str
    """The metrics behind it, such as `busy 4/4, queued 5, oldest 3.2 s, estimated wait 9.1 s: 1 ->
    2`. The estimated wait is the time until the last queued request gets a slot, with the ready
    replicas."""
    has_metrics: bool = True
    """Whether the decision is based on metrics of the balancer."""


@dataclass(frozen=True)
class ScalingInput:
    """The observations that a decision is based on."""

    sample: Sample | None = None
    """The last sample of the balancer."""
    history: History = History()  # noqa: RUF009 (frozen)
    """The required replicas of each sample, including the last one."""
    changes: Sequence[Change] = ()
    """The changes made by earlier decisions."""


def decide(policy: Policy, observed: ScalingInput, *, current: int, now: float) -> Decision:
    """Decide on the number of replicas: scale up at once, down once fewer were enough for long.

    A sample requires the smallest number of replicas for which (a) the last queued request and the
    next arrival get a slot within maxWaitSeconds, (b) the mean demand stays within
    targetSlotUtilization of the slots, (c) the Erlang C mean wait is at most maxWaitSeconds.
    Without measured service times, or once a request has waited longer, it requires one slot per
    request. Scale up when every sample in the window of behavior.scaleUp required it; scale down
    when no sample in the window of behavior.scaleDown required more, and the current demand still
    fits.

    `current` is the number of replicas, ready or not: loading replicas count.

    In the tables a replica has 4 slots, one replica is ready, and there is a sample every second.
    `6 (service time 9 s, oldest 3 s)` is a demand of 6, with a mean service time of 9 s, where the
    oldest queued request has waited for 3 s; `no data` is no sample. The mean demand is that of the
    row.

    With `{maxReplicas: 3, behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}`:

    | current | demand                                            | desired | reason              |
    |---------|---------------------------------------------------|---------|---------------------|
    | 1       | 3 for 90 s                                        | 1       | DesiredWithinRange  |
    | 1       | 3 for 90 s, then 4                                | 1       | DesiredWithinRange  |
    | 1       | 3 for 90 s, then 5                                | 2       | DemandAboveCapacity |
    | 1       | 4 for 90 s                                        | 2       | DemandAboveCapacity |
    | 2       | 6 for 90 s                                        | 2       | DesiredWithinRange  |
    | 1       | 0 for 90 s, then 40                               | 3       | DemandAboveCapacity |
    | 3       | 9 for 90 s                                        | 3       | DesiredWithinRange  |
    | 3       | 40 for 90 s                                       | 3       | AtMaxReplicas       |
    | 2       | 3 for 90 s, then 5, then 3 for 59 s               | 2       | Stabilizing         |
    | 2       | 3 for 90 s, then 5, then 3 for 60 s               | 1       | DemandBelowTarget   |
    | 2       | 3 for 90 s, then 4                                | 2       | Stabilizing         |
    | 3       | 5 for 90 s, then 0 for 30 s                       | 2       | DemandBelowTarget   |
    | 3       | 0 for 90 s                                        | 1       | DemandBelowTarget   |
    | 2       | 0 for 90 s, then 9, then 0                        | 2       | Stabilizing         |
    | 2       | 0                                                 | 2       | Stabilizing         |
    | 2       | 0 for 40 s, then no data for 9 s, then 0 for 40 s | 2       | Stabilizing         |
    | 2       | no data                                           | 2       | MetricsUnavailable  |
    | 2       | 0 for 90 s, then no data for 9 s                  | 2       | MetricsUnavailable  |
    | 1       | 9 for 90 s, then no data for 9 s                  | 1       | MetricsUnavailable  |
    | 0       | no data                                           | 1       | OutOfBounds         |
    | 5       | no data                                           | 3       | OutOfBounds         |
    | 5       | 9 for 90 s                                        | 3       | OutOfBounds         |
    | 0       | 5                                                 | 2       | DemandAboveCapacity |

    With `{maxReplicas: 4, targetSlotUtilization: 100, maxWaitSeconds: 2}`:

    | current | demand                                            | desired | reason               |
    |---------|---------------------------------------------------|---------|----------------------|
    | 1       | 4 for 90 s                                        | 1       | DesiredWithinRange   |
    | 1       | 4 for 90 s, then 5                                | 2       | DemandAboveCapacity  |
    | 1       | 2 (service time 10 s)                             | 1       | DesiredWithinRange   |
    | 1       | 3 (service time 10 s)                             | 2       | QueueWaitAboveTarget |
    | 1       | 3 (service time 1 s)                              | 1       | DesiredWithinRange   |
    | 2       | 6 (service time 10 s)                             | 2       | DesiredWithinRange   |
    | 2       | 7 (service time 10 s)                             | 3       | QueueWaitAboveTarget |
    | 3       | 6 (service time 10 s) for 400 s                   | 2       | DemandBelowTarget    |
    | 3       | 2 (service time 1 s) for 299 s                    | 3       | Stabilizing          |
    | 3       | 2 (service time 1 s) for 300 s                    | 1       | DemandBelowTarget    |
    | 4       | 30 (service time 10 s)                            | 4       | AtMaxReplicas        |
    | 1       | 0 for 90 s, then 5 (service time 6 s)             | 1       | DesiredWithinRange   |
    | 1       | 0 for 90 s, then 6 (service time 6 s)             | 2       | DemandAboveCapacity  |
    | 1       | 0 for 90 s, then 5 (service time 6 s, oldest 2 s) | 1       | DesiredWithinRange   |
    | 1       | 0 for 90 s, then 5 (service time 6 s, oldest 3 s) | 2       | DemandAboveCapacity  |
    | 1       | 0 for 90 s, then 12 (service time 1 s)            | 1       | DesiredWithinRange   |
    | 1       | 0 for 90 s, then 4 (service time 9 s)             | 1       | DesiredWithinRange   |
    | 1       | 1 for 90 s, then 4 (service time 6 s)             | 1       | DesiredWithinRange   |
    | 1       | 1 for 90 s, then 4 (service time 9 s)             | 2       | DemandAboveCapacity  |
    | 1       | 0 for 90 s, then 12                               | 3       | DemandAboveCapacity  |
    | 1       | 0 for 90 s, then 12 (service time 6 s)            | 3       | DemandAboveCapacity  |
    | 1       | 0 for 90 s, then 9 (service time 6 s)             | 2       | DemandAboveCapacity  |
    | 0       | 0 for 90 s, then 9 (service time 6 s)             | 2       | DemandAboveCapacity  |

    With `{minReplicas: 0, maxReplicas: 3, idleSeconds: 20}`:

    | current | demand                                           | desired | reason              |
    |---------|--------------------------------------------------|---------|---------------------|
    | 0       | 0 for 90 s                                       | 0       | DesiredWithinRange  |
    | 0       | 0 for 90 s, then 1                               | 1       | DemandAboveCapacity |
    | 0       | 0 (service time 9 s)                             | 0       | DesiredWithinRange  |
    | 0       | 9                                                | 3       | DemandAboveCapacity |
    | 0       | no data                                          | 0       | MetricsUnavailable  |
    | 1       | no data                                          | 1       | MetricsUnavailable  |
    | 1       | 0                                                | 1       | Stabilizing         |
    | 1       | 1 for 90 s, then 0 for 19 s                      | 1       | Stabilizing         |
    | 1       | 1 for 90 s, then 0 for 20 s                      | 0       | Idle                |
    | 3       | 9 for 90 s, then 0 (service time 9 s) for 20 s   | 0       | Idle                |
    | 1       | 0 for 19 s, then no data for 9 s, then 0 for 9 s | 1       | Stabilizing         |
    | 1       | 0 for 19 s, then 1                               | 1       | DesiredWithinRange  |
    | 3       | 1 for 300 s                                      | 1       | DemandBelowTarget   |
    | 0       | 0 and preemptible requests                       | 1       | DemandAboveCapacity |
    | 1       | 0 and preemptible requests for 90 s              | 1       | DesiredWithinRange  |
    | 3       | 0 and preemptible requests for 300 s             | 1       | DemandBelowTarget   |
    | 3       | 9 and preemptible requests                       | 3       | DesiredWithinRange  |

    With `{maxReplicas: 9, behavior: {scaleUp: {stabilizationWindowSeconds: 30, policies: [{type:
    Pods, value: 2, periodSeconds: 60}]}, scaleDown: {selectPolicy: Disabled}}}`:

    | current | demand                                       | desired | reason              |
    |---------|----------------------------------------------|---------|---------------------|
    | 1       | 0 for 90 s, then 40 for 29 s                 | 1       | Stabilizing         |
    | 1       | 0 for 90 s, then 40 for 30 s                 | 3       | DemandAboveCapacity |
    | 1       | 0 for 90 s, then 5 for 9 s, then 40 for 29 s | 2       | DemandAboveCapacity |
    | 3       | 0 for 400 s                                  | 3       | RateLimited         |
    """
    sample = observed.sample
    spec = policy.spec
    if sample is None or now - sample.at > PEAK_WINDOW_SECONDS:
        bounded = policy.clamp(current)
        reason = (
            ScalingReason.METRICS_UNAVAILABLE if bounded == current else ScalingReason.OUT_OF_BOUNDS
        )
        schedule = _schedule(policy) if reason is ScalingReason.OUT_OF_BOUNDS else ""
        message = f"no metrics from any balancer{schedule}: {_change(current, bounded)}"
        return Decision(bounded, reason, message, has_metrics=False)
    required = policy.required_replicas(sample)
    behavior = spec.behavior
    message = _summary(sample, total=policy.slots * current)
    if current and _is_idle(policy, observed, now):
        message += f", idle for {policy.idle_seconds} s"
        return Decision(0, ScalingReason.IDLE, f"{message}: {_change(current, 0)}")
    # With minReplicas 0, only idleness removes the last replica, and the first is added at once.
    minimum = spec.min_replicas or int(current > 0 or required > 0)
    bounded = policy.clamp(current, minimum=minimum)
    stable = _stabilized(policy, observed, required, bounded, now)
    desired = policy.clamp(stable, minimum=minimum)
    # However few are enough on average, they must be enough for the current demand, too.
    desired = max(desired, min(policy.at_utilization(sample.demand), bounded))
    if desired >= bounded:
        limit = scale_up_limit(behavior.scale_up, observed.changes, current=current, now=now)
        replicas = desired if limit is None else max(bounded, min(desired, limit))
    else:
        limit = scale_down_limit(behavior.scale_down, observed.changes, current=current, now=now)
        replicas = min(bounded, max(desired, limit))
    if replicas > bounded or (replicas > current and not spec.min_replicas):
        others = max(policy.for_demand(sample), policy.for_mean_demand(sample))
        reason = (
            ScalingReason.QUEUE_WAIT_ABOVE_TARGET
            if policy.for_queue_wait(sample) > others
            else ScalingReason.DEMAND_ABOVE_CAPACITY
        )
    elif replicas < bounded:
        reason = ScalingReason.DEMAND_BELOW_TARGET
    elif bounded != current:
        reason = ScalingReason.OUT_OF_BOUNDS
    elif desired != bounded:
        reason = ScalingReason.RATE_LIMITED
    elif policy.clamp(required) != bounded:
        reason = ScalingReason.STABILIZING
    else:
        reason = (
            ScalingReason.AT_MAX_REPLICAS
            if required > spec.max_replicas
            else ScalingReason.DESIRED_WITHIN_RANGE
        )
    message += _details(policy, sample, reason, total=policy.slots * current)
    if replicas != desired:
        message += f", {desired} desired, limited by behavior policies"
    return Decision(replicas, reason, f"{message}: {_change(current, replicas)}")


def _is_idle(policy: Policy, observed: ScalingInput, now: float) -> bool:
    if policy.spec.min_replicas or policy.spec.behavior.scale_down.select_policy == "Disabled":
        return False
    return observed.history.max_since(now - policy.idle_seconds) == 0


def _stabilized(
    policy: Policy, observed: ScalingInput, required: int, bounded: int, now: float
) -> int:
    """Return the required replicas as far as behavior's stabilization windows allow.

    Not more than every sample of the scaleUp window required, nor fewer than any of the scaleDown
    window did.
    """
    window = policy.spec.behavior.scale_up.stabilization_window_seconds
    minimum = observed.history.min_since(now - window)
    up = required if minimum is None else min(required, minimum)
    maximum = observed.history.max_since(now - policy.scale_down_window)
    down = bounded if maximum is None else max(required, maximum)
    return min(max(bounded, up), max(down, up))


def _summary(sample: Sample, *, total: int) -> str:
    summary = f"busy {sample.busy_slots}/{total}, queued {sample.queued}"
    if sample.further_tasks:
        summary += f", further tasks {sample.further_tasks}"
    if sample.queued:
        summary += f", oldest {sample.oldest_queued_seconds:.1f} s"
    if sample.queued and sample.mean_service_seconds and sample.total_slots:
        wait = drain_time(sample.current_demand, sample.mean_service_seconds, sample.total_slots)
        summary += f", estimated wait {wait:.1f} s"
    if sample.peak_demand > sample.current_demand:
        summary += f", recent peak {sample.peak_demand}"
    if sample.preemptible:
        summary += f", preemptible {sample.preemptible}"
    return summary


def _details(policy: Policy, sample: Sample, reason: ScalingReason, *, total: int) -> str:
    """Return what decided, where the summary does not show it."""
    max_wait = policy.spec.max_wait_seconds
    if reason is ScalingReason.QUEUE_WAIT_ABOVE_TARGET:
        return (
            f", mean demand {sample.offered_load:.1f}"
            f", mean service time {sample.mean_service_seconds:.1f} s"
            f", expected queue wait above {max_wait} s"
        )
    if reason is ScalingReason.DEMAND_ABOVE_CAPACITY and policy.for_mean_demand(
        sample
    ) > policy.for_demand(sample):
        target = policy.spec.target_slot_utilization
        return f", mean demand {sample.offered_load:.1f} above {target} % of {total} slots"
    if (
        reason is ScalingReason.DEMAND_ABOVE_CAPACITY
        and sample.mean_service_seconds
        and sample.total_slots
    ):
        last, following = (
            drain_time(sample.demand + more, sample.mean_service_seconds, sample.total_slots)
            for more in (0, 1)
        )
        if sample.oldest_queued_seconds <= max_wait and last <= max_wait < following:
            return f", next request would wait {following:.1f} s"
    if reason is ScalingReason.DEMAND_BELOW_TARGET:
        return f", below target for {policy.scale_down_window:g} s"
    return (
        _schedule(policy)
        if reason in {ScalingReason.OUT_OF_BOUNDS, ScalingReason.AT_MAX_REPLICAS}
        else ""
    )


def _schedule(policy: Policy) -> str:
    if policy.schedule is None:
        return ""
    cron = policy.schedule.cron
    zone = policy.schedule.time_zone
    allowed = f"{policy.spec.min_replicas} to {policy.spec.max_replicas}"
    return f', {allowed} replicas allowed by schedule "{cron}" ({zone})'


def _change(current: int, replicas: int) -> str:
    return f"{current} (unchanged)" if replicas == current else f"{current} -> {replicas}"
