"""Carries out a plan. With `events` and the status, the only writer."""

from dataclasses import dataclass, field

from slotkeeper.kube.cluster import Cluster, Conflict, Manifest
from slotkeeper.kube.kinds import kind_of
from slotkeeper.kube.objects import Child, child, without_preconditions
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.write.conflicts import Drift
from slotkeeper.reconcile.write.diff import differences, satisfies
from slotkeeper.reconcile.write.managed_fields import last_manager
from slotkeeper.reconcile.write.plan import Plan


@dataclass
class Applied:
    """What came of a plan beside what it says."""

    unlabelled: set[Child] = field(default_factory=set)
    """What the plan took for absent, and what is there all the same: it is left as it is."""
    corrected: list[Drift] = field(default_factory=list)
    """What others had changed."""
    changed_on_write: list[Drift] = field(default_factory=list)
    """What was written and came back with other values."""

    def __add__(self, other: "Applied") -> "Applied":
        """What came of one plan and then of another."""
        put_right = self.corrected + other.corrected
        resisted = self.changed_on_write + other.changed_on_write
        return Applied(self.unlabelled | other.unlabelled, put_right, resisted)


async def apply(plan: Plan, cluster: Cluster, store: Store) -> Applied:
    """Write what the plan says, in its order, and tell the store what came of it.

    Raises ApiError at the first refusal. Stopped anywhere, the next reconcile goes on from what it
    finds.
    """
    applied = Applied()
    for manifest in plan.apply:
        one = child(manifest)
        says = without_preconditions(manifest)
        drift = await _drift(says, cluster) if one in plan.drifted else None
        try:
            made = await cluster.apply(manifest)
        except Conflict:
            if "uid" in manifest["metadata"]:
                raise
            applied.unlabelled.add(one)
            continue
        store.put(made)
        if drift:
            applied.corrected.append(drift)
        if not satisfies(says, made):
            applied.changed_on_write.append(Drift.of(one, differences(says, made)))
    for manifest in plan.delete:
        metadata = manifest["metadata"]
        await cluster.delete(
            kind_of(manifest), metadata["namespace"], metadata["name"], metadata["uid"]
        )
        store.confirm_deleted(manifest)
    return applied


async def _drift(says: Manifest, cluster: Cluster) -> Drift:
    """What others did to a child, and who: nobody keeps the managers of all fields in memory."""
    one = child(says)
    namespace = says["metadata"]["namespace"]
    found = await cluster.get(one[0], namespace, one[1])
    if found is None:
        return Drift.of(one, ())
    paths = list(differences(says, found))
    return Drift.of(one, paths, last_manager(found, paths))
