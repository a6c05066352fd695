"""How many replicas a server should have now. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from slotkeeper.api.server import LlamaServer
from slotkeeper.scaling.decide import Policy, Sample, decide

FIXED = "Fixed"
SUSPENDED = "Suspended"
BY_HAND = frozenset({FIXED, SUSPENDED})
"""Reasons that no number of a balancer's has a part in."""


@dataclass(frozen=True)
class Wanted:
    """A number of replicas, with its reason in a word and in a sentence."""

    replicas: int
    reason: str
    message: str


@dataclass(frozen=True)
class Scaling:
    """The decision of this look, and how many replicas there were before it."""

    wanted: Wanted
    before: int | None
    """None where there was no Deployment."""
    settling: bool
    """It is too early after a start to say that there are no numbers."""

    @property
    def scaled(self) -> bool:
        """Whether the number of replicas changes with this decision."""
        return self.before is not None and self.before != self.wanted.replicas


def wanted(
    server: LlamaServer,
    current: int | None,
    samples: Sequence[Sample],
    *,
    now: float,
    quiet_seconds: float,
) -> Wanted:
    """As many as spec.replicas says, or, where autoscaling is set, as demand asks for.

    None at all while the server is suspended.

    `current` is what the Deployment is set to; None without one: then it starts from what was
    wanted last, so that a Deployment that somebody deleted comes back as large as it was.
    """
    if server.spec.suspend:
        return Wanted(0, SUSPENDED, "spec.suspend is true")
    bounds = server.spec.autoscaling
    if bounds is None:
        replicas = server.spec.replicas
        return Wanted(replicas, FIXED, f"spec.replicas is {replicas}")
    policy = Policy(bounds.min_replicas, bounds.max_replicas, server.spec.slots, quiet_seconds)
    if current is None:
        before = server.status.get("scaling") or {}
        current = policy.bounded(before.get("wanted", policy.min_replicas))
    decision = decide(policy, samples, current=current, now=now)
    return Wanted(decision.replicas, decision.reason.value, decision.message)
