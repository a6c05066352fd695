"""The last scaling decision of a server, as metrics show it. Pure."""

from dataclasses import dataclass

from slotkeeper.api.conditions import ConditionType, condition
from slotkeeper.api.server import LlamaServer
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.scaling.policy import Policy


@dataclass(frozen=True)
class ReplicaBounds:
    """The replicas that autoscaling and its schedules allow now."""

    minimum: int
    maximum: int
    active: bool
    """Whether demand sets the number of replicas; else no metrics are available."""


@dataclass(frozen=True)
class ScalingSnapshot:
    """A decision and what it was based on."""

    replicas: int
    reason: str
    demand: int
    """Busy slots and queued requests; 0 without a report."""
    current: int = 0
    """Existing replicas."""
    ready: int = 0
    """Ready replicas."""
    bounds: ReplicaBounds | None = None
    """None without autoscaling."""


def scaling_snapshot(
    server: LlamaServer, demand: ServerDemand | None, policy: Policy | None
) -> ScalingSnapshot | None:
    """The decision in the status, with the current policy's bounds; None before the first one."""
    status = server.status
    scaling = status.get("scaling")
    if not scaling:
        return None
    bounds = None
    if policy:
        active = condition(status, ConditionType.SCALING_ACTIVE).get("status") == "True"
        bounds = ReplicaBounds(policy.spec.min_replicas, policy.spec.max_replicas, active)
    return ScalingSnapshot(
        scaling["desiredReplicas"],
        scaling["reason"],
        demand.sample.current_demand if demand else 0,
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        bounds,
    )
