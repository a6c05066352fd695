"""How many replicas a server should have. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime

from slotkeeper.api.server import LlamaServer
from slotkeeper.scaling.budget.decision import Grant
from slotkeeper.scaling.decide import ScalingInput, decide
from slotkeeper.scaling.policy import Policy

MANUAL = "Manual"
SUSPENDED = "Suspended"
GATEWAY_BUDGET = "GatewayBudget"
NOT_AUTOSCALED = frozenset({MANUAL, SUSPENDED})
"""Reasons that do not depend on demand."""


@dataclass(frozen=True)
class DesiredReplicas:
    """A number of replicas, with its reason."""

    replicas: int
    reason: str
    """One word, for programs."""
    message: str
    """For people."""
    has_metrics: bool = True
    """Whether the decision is based on a current report."""
    minimum: int = 0
    """Replicas without any demand."""
    exceeds_budget: str = ""
    """Why no replica will ever fit into the budget of the server's gateway; empty if one may."""


@dataclass(frozen=True)
class Scaling:
    """A decision and the number of replicas before it."""

    desired: DesiredReplicas
    before: int | None
    """None without a Deployment."""
    warming_up: bool
    """Whether it is too early to report that metrics are unavailable."""

    @property
    def change(self) -> int:
        """Replicas that the decision adds, negative for fewer."""
        return 0 if self.before is None else self.desired.replicas - self.before

    @property
    def scaled(self) -> bool:
        """Whether the decision changes the number of replicas."""
        return self.change != 0

    @property
    def awaits_report(self) -> bool:
        """Whether only the first report will show if a replica is desired: demand may wake one."""
        at_zero = self.desired.replicas == 0 and self.desired.reason not in NOT_AUTOSCALED
        return at_zero and self.warming_up


def policy_of(server: LlamaServer, scheduled: datetime) -> Policy | None:
    """The scaling policy at this time; None where demand does not set the number of replicas."""
    spec = server.spec
    if spec.suspend or spec.autoscaling is None:
        return None
    return Policy.at(spec.slots, spec.autoscaling, scheduled)


def desired_replicas(
    server: LlamaServer,
    policy: Policy | None,
    current: int | None,
    demand: ScalingInput,
    now: float,
) -> DesiredReplicas:
    """The number of replicas: 0 while suspended, by demand with autoscaling, else spec.replicas.

    `policy` is that of `policy_of`, `current` what the Deployment specifies. None without one:
    autoscaling then starts from the last number in the status, so that a deleted Deployment is
    created as large as it was.
    """
    if server.spec.suspend:
        return DesiredReplicas(0, SUSPENDED, "spec.suspend is true")
    if policy is None:
        replicas = server.spec.replicas
        return DesiredReplicas(replicas, MANUAL, f"spec.replicas is {replicas}", minimum=replicas)
    if current is None:
        last = server.status.get("scaling") or {}
        current = policy.clamp(last.get("desiredReplicas", policy.spec.min_replicas))
    decision = decide(policy, demand, current=current, now=now)
    return DesiredReplicas(
        decision.replicas,
        decision.reason.value,
        decision.message,
        decision.has_metrics,
        policy.spec.min_replicas,
    )


def within_grant(desired: DesiredReplicas, grant: Grant | None) -> DesiredReplicas:
    """The desired replicas as far as the budget of the server's gateway allows them."""
    if grant is None:
        return desired
    if grant.exceeds and (desired.replicas or desired.reason not in NOT_AUTOSCALED):
        message = f"{grant.exceeds}: raise the budget of the gateway, or lower what a replica needs"
        desired = replace(desired, exceeds_budget=message)
    if desired.replicas <= grant.replicas:
        return desired
    message = f"{desired.replicas} desired, {grant.replicas} within the gateway's budget"
    return replace(
        desired,
        replicas=grant.replicas,
        reason=GATEWAY_BUDGET,
        message=f"{message}: {grant.message}",
    )
