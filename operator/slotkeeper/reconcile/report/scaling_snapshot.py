"""What there is to show of the decisions on a server's replicas. Pure."""

from dataclasses import dataclass
from datetime import datetime

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.server import LlamaServer
from slotkeeper.reconcile.decide.replicas import policy_of
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.report.conditions import condition


@dataclass(frozen=True)
class ReplicaBounds:
    """How many replicas there may be by autoscaling and its schedules."""

    minimum: int
    maximum: int
    active: bool
    """Whether demand says how many there are; else nobody knows the demand."""


@dataclass(frozen=True)
class ScalingSnapshot:
    """The last decision, and what it was made of."""

    replicas: int
    reason: str
    demand: int
    """0 where the balancer has said nothing."""
    current: int = 0
    """Replicas that there are."""
    ready: int = 0
    """Those of them that serve."""
    bounds: ReplicaBounds | None = None
    """None where demand has no say."""


def scaling_snapshot(
    server: LlamaServer, reading: ServerDemand | None, today: datetime
) -> ScalingSnapshot | None:
    """What the status tells, with the bounds of `today`; None before the first decision."""
    status = server.status
    said = status.get("scaling")
    if not said:
        return None
    demand = reading.sample.busy_slots + reading.sample.queued if reading else 0
    policy = policy_of(server, today)
    bounds = None
    if policy:
        active = condition(status, ConditionType.SCALING_ACTIVE).get("status") == "True"
        bounds = ReplicaBounds(policy.spec.min_replicas, policy.spec.max_replicas, active)
    return ScalingSnapshot(
        said["desiredReplicas"],
        said["reason"],
        demand,
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        bounds,
    )
