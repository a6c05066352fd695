"""The decision of a pass: the replicas of a server, and what blocks their start. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.reconcile.decide.blocker import published_blocker, start_blocker
from slotkeeper.reconcile.decide.replicas import DesiredReplicas, Scaling
from slotkeeper.reconcile.observe.observed import Snapshot
from slotkeeper.reconcile.observe.problem import Problem


@dataclass(frozen=True)
class Decision:
    """The decision of one pass."""

    scaling: Scaling
    blocker: StartBlocker | None
    keeps_blocker: bool = False
    """The blocker is only the published one: whether it persists is not known yet."""

    def unscaled(self) -> "Decision":
        """The same decision where it does not count as a change of the number of replicas."""
        desired = self.scaling.desired.replicas
        return replace(self, scaling=replace(self.scaling, before=desired))


def decide(
    snapshot: Snapshot,
    desired: DesiredReplicas,
    wall: datetime,
    *,
    warming_up: bool,
    rejected: Problem | None,
    attempted: bool,
) -> Decision:
    """Decide on one server, at the time of day `wall`.

    `rejected` is why the last plan could not be carried out; it is not known before a pass has
    `attempted` one with the replicas that demand requires.
    """
    server, observed = snapshot.server, snapshot.observed
    blocker = start_blocker(server, observed, desired=desired, rejected=rejected, wall=wall)
    kept = None if blocker or attempted else published_blocker(server, observed)
    return Decision(
        Scaling(desired, observed.current, warming_up), blocker or kept, kept is not None
    )
