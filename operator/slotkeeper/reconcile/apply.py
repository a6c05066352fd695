"""Carries out a plan. With `events` and the status, the only writer."""

from slotkeeper.kube.cluster import Cluster, Conflict
from slotkeeper.kube.kinds import kind_of
from slotkeeper.reconcile.plan import Child, Plan, child
from slotkeeper.reconcile.store import Store


async def apply(plan: Plan, cluster: Cluster, store: Store) -> set[Child]:
    """Write what the plan says, in its order, and tell the store what came of it.

    Returns what the plan took for absent, and what is there all the same: it is left as it is.
    Raises ApiError at the first refusal. Stopped anywhere, the next reconcile goes on from what it
    finds.
    """
    hidden = set[Child]()
    for manifest in plan.apply:
        try:
            store.put(await cluster.apply(manifest))
        except Conflict:
            if "uid" in manifest["metadata"]:
                raise
            hidden.add(child(manifest))
    for manifest in plan.delete:
        metadata = manifest["metadata"]
        await cluster.delete(
            kind_of(manifest), metadata["namespace"], metadata["name"], metadata["uid"]
        )
        store.deleted(manifest)
    return hidden
