"""What must change in the cluster: desired manifests against observed objects. Pure."""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slotkeeper.api.resource import Resource
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import ROLES, kind_of
from slotkeeper.kube.objects import Child, child, owned, with_precondition
from slotkeeper.reconcile.observe.ownership import belongs_to, is_orphan
from slotkeeper.reconcile.write.diff import Path, differences, satisfies


@dataclass(frozen=True)
class Plan:
    """What to write: `apply` in this order, then `delete`.

    Each manifest to apply has a precondition, since what was observed may be out of date: with
    `metadata.uid` it changes only the object that was observed, without one it only creates.
    """

    apply: Sequence[Manifest] = ()
    delete: Sequence[Manifest] = ()
    drifted: Mapping[Child, Sequence[Path]] = field(default_factory=dict)
    """Children to apply that were applied before in the same form: the fields that others changed
    since, none where the child was deleted."""
    adopted: Container[Child] = ()
    """Children to apply that have no owner yet."""
    optional: Container[Child] = ()
    """Children that the API server may reject: the others do not depend on them."""

    def __bool__(self) -> bool:
        return bool(self.apply or self.delete)

    @property
    def creates(self) -> bool:
        """Whether an object is to be created."""
        return any("uid" not in manifest["metadata"] for manifest in self.apply)

    @property
    def adopts(self) -> bool:
        """Whether an object without an owner is to be adopted."""
        return any(child(manifest) in self.adopted for manifest in self.apply)

    def without(self, children: Container[Child]) -> "Plan":
        """The plan without the writes to these children."""
        return replace(
            self,
            apply=[each for each in self.apply if child(each) not in children],
            drifted={one: paths for one, paths in self.drifted.items() if one not in children},
        )


def plan_changes(
    desired: Iterable[Manifest],
    observed: Mapping[Child, Manifest],
    owner: Resource,
    deleted_by_others: Container[Child] = (),
) -> Plan:
    """The writes that make `observed` satisfy `desired`; none where it does.

    `observed` are the objects with the desired names, and all with the owner's label. Only objects
    that the owner owns are deleted, and only these and desired orphans are changed: see
    `name_conflict`. `deleted_by_others` are children that were deleted, and not by the operator.
    """
    manifests = {child(manifest): _with_hash(manifest) for manifest in desired}
    changed = {
        one: manifest
        for one, manifest in manifests.items()
        if one not in observed
        or (belongs_to(observed[one], owner) and not satisfies(manifest, observed[one]))
    }
    apply = [with_precondition(manifest, observed.get(one)) for one, manifest in changed.items()]
    return Plan(
        # The Role first: it has the access rules and the start blocker, which are in force also
        # where a later write is rejected.
        apply=sorted(apply, key=lambda manifest: kind_of(manifest) != ROLES),
        delete=[
            item
            for one, item in observed.items()
            if one not in manifests
            and owned(item, owner.uid)
            and "deletionTimestamp" not in item["metadata"]
        ],
        drifted={
            one: list(differences(manifest, observed[one])) if one in observed else []
            for one, manifest in changed.items()
            if (
                _was_applied(manifest, observed[one])
                if one in observed
                else one in deleted_by_others
            )
        },
        adopted={one for one in changed if one in observed and is_orphan(observed[one], owner)},
    )


def _was_applied(manifest: Manifest, item: Manifest) -> bool:
    """Whether exactly this manifest was applied last: what differs was changed by others."""
    annotations = item["metadata"].get("annotations") or {}
    mark = annotations.get(names.APPLIED_HASH_ANNOTATION)
    # Only others remove the annotation.
    return mark in {None, manifest["metadata"]["annotations"][names.APPLIED_HASH_ANNOTATION]}


def _with_hash(manifest: Manifest) -> Manifest:
    # A field that is no longer in the manifest changes the hash. The manifest is then applied once
    # more, and the API server drops the field, which this field manager does not specify any more.
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    mark = {names.APPLIED_HASH_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), **mark}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
