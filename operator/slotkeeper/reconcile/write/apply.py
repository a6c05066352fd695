"""Carries out a plan."""

from dataclasses import dataclass, field

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest
from slotkeeper.kube.kinds import kind_of
from slotkeeper.kube.objects import Child, child, without_preconditions
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.write.apply_errors import is_permanent
from slotkeeper.reconcile.write.conflicts import Drift
from slotkeeper.reconcile.write.diff import differences, satisfies
from slotkeeper.reconcile.write.managed_fields import last_manager
from slotkeeper.reconcile.write.plan import Plan


@dataclass
class Result:
    """The outcome of a plan."""

    applied: set[Child] = field(default_factory=set)
    deleted: set[Child] = field(default_factory=set)
    unlabelled: set[Child] = field(default_factory=set)
    """Children that the plan took for missing and that exist: they are left as they are."""
    adopted: list[Child] = field(default_factory=list)
    """Those of `applied` that had no owner before."""
    corrected: list[Drift] = field(default_factory=list)
    """What others had changed."""
    changed_on_write: list[Drift] = field(default_factory=list)
    """Children that came back from the write with other values."""
    skipped: dict[Child, str] = field(default_factory=dict)
    """Optional children that the API server rejected, and why."""
    error: ApiError | None = None
    """The failure that ended the plan."""

    @property
    def outdates_snapshot(self) -> bool:
        """Whether anything was written, or found to exist though the snapshot lacks it."""
        return bool(self.applied or self.deleted or self.unlabelled)

    @property
    def rejected(self) -> Problem | None:
        """The failure, if it is a permanent rejection."""
        if self.error is None or not is_permanent(self.error):
            return None
        return Problem(Reason.APPLY_REJECTED, self.error.message)


async def apply(plan: Plan, cluster: Cluster, store: Store) -> Result:
    """Write the plan in its order, and record each write in the store.

    A failure ends it, with the writes before it in the result. Stopped anywhere, the next pass
    continues from what it observes.
    """
    result = Result()
    try:
        for manifest in plan.apply:
            try:
                await _apply(manifest, plan, cluster, store, result)
            except ApiError as error:
                if child(manifest) not in plan.optional or not is_permanent(error):
                    raise
                result.skipped[child(manifest)] = error.message
        for manifest in plan.delete:
            metadata = manifest["metadata"]
            await cluster.delete(
                kind_of(manifest), metadata["namespace"], metadata["name"], metadata["uid"]
            )
            store.confirm_deleted(manifest)
            result.deleted.add(child(manifest))
    except ApiError as error:
        result.error = error
    return result


async def _apply(
    manifest: Manifest, plan: Plan, cluster: Cluster, store: Store, result: Result
) -> None:
    one = child(manifest)
    specified = without_preconditions(manifest)
    drift = await _drift(specified, cluster) if one in plan.drifted else None
    try:
        written = await cluster.apply(manifest)
    except Conflict:
        namespace = specified["metadata"]["namespace"]
        # Without an object that exists, it is a conflict of something else, such as of a quota.
        if "uid" in manifest["metadata"] or not await cluster.get(one[0], namespace, one[1]):
            raise
        result.unlabelled.add(one)
        return
    store.put(written)
    result.applied.add(one)
    if one in plan.adopted:
        result.adopted.append(one)
    if not satisfies(specified, written):
        result.changed_on_write.append(Drift.of(one, differences(specified, written)))
    elif drift:
        result.corrected.append(drift)


async def _drift(specified: Manifest, cluster: Cluster) -> Drift:
    """What others changed in a child, and their field manager. From the API: the store keeps no
    managedFields."""
    one = child(specified)
    found = await cluster.get(one[0], specified["metadata"]["namespace"], one[1])
    if found is None:
        return Drift.of(one, ())
    paths = list(differences(specified, found))
    return Drift.of(one, paths, last_manager(found, paths))
