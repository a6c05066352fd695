"""How many replicas a server should have now. Pure."""

from dataclasses import dataclass
from datetime import datetime

from slotkeeper.api.server import LlamaServer
from slotkeeper.scaling.decide import ScalingInput, decide
from slotkeeper.scaling.policy import Policy

MANUAL = "Manual"
SUSPENDED = "Suspended"
NOT_AUTOSCALED = frozenset({MANUAL, SUSPENDED})
"""Reasons that no number of a balancer's has a part in."""


@dataclass(frozen=True)
class DesiredReplicas:
    """A number of replicas, with its reason in a word and in a sentence."""

    replicas: int
    reason: str
    message: str
    has_metrics: bool = True
    """Whether whoever decides knew what there is to know."""
    minimum: int = 0
    """How many there are without any demand."""


@dataclass(frozen=True)
class Scaling:
    """The decision of this look, and how many replicas there were before it."""

    desired: DesiredReplicas
    before: int | None
    """None where there was no Deployment."""
    warming_up: bool
    """It is too early after a start to say that there are no numbers."""

    @property
    def change(self) -> int:
        """How many replicas this decision adds, or takes away (fewer than 0)."""
        return 0 if self.before is None else self.desired.replicas - self.before

    @property
    def scaled(self) -> bool:
        """Whether the number of replicas changes with this decision."""
        return self.change != 0


def policy_of(server: LlamaServer, today: datetime) -> Policy | None:
    """What decisions on this server's replicas keep to at that time of `today`; None where demand
    has no say in them."""
    spec = server.spec
    if spec.suspend or spec.autoscaling is None:
        return None
    return Policy.at(spec.slots, spec.autoscaling, today)


def desired_replicas(
    server: LlamaServer, current: int | None, known: ScalingInput, *, now: float, today: datetime
) -> DesiredReplicas:
    """As many as spec.replicas says, or, where autoscaling is set, as demand asks for.

    None at all while the server is suspended.

    `now` is on the clock of the samples, in seconds, and `today` the same moment by the calendar.
    `current` is what the Deployment is set to; None without one: then it starts from what was
    wanted last, so that a Deployment that somebody deleted comes back as large as it was.
    """
    if server.spec.suspend:
        return DesiredReplicas(0, SUSPENDED, "spec.suspend is true")
    policy = policy_of(server, today)
    if policy is None:
        replicas = server.spec.replicas
        return DesiredReplicas(replicas, MANUAL, f"spec.replicas is {replicas}", minimum=replicas)
    if current is None:
        before = server.status.get("scaling") or {}
        current = policy.clamp(before.get("desiredReplicas", policy.spec.min_replicas))
    decision = decide(policy, known, current=current, now=now)
    return DesiredReplicas(
        decision.replicas,
        decision.reason.value,
        decision.message,
        decision.has_metrics,
        policy.spec.min_replicas,
    )
