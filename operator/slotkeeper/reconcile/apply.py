"""Carries out a plan. With `events` and the status, the only writer."""

from slotkeeper.kube.cluster import Cluster
from slotkeeper.kube.kinds import kind_of
from slotkeeper.reconcile.plan import Plan


async def apply(plan: Plan, cluster: Cluster) -> None:
    """Write what the plan says, in its order; raises ApiError at the first refusal.

    Stopped anywhere, the next reconcile goes on from what it finds.
    """
    for manifest in plan.apply:
        await cluster.apply(manifest)
    for manifest in plan.delete:
        metadata = manifest["metadata"]
        await cluster.delete(
            kind_of(manifest), metadata["namespace"], metadata["name"], metadata["uid"]
        )
