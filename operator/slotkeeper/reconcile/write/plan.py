"""What must change in the cluster: wanted manifests against what there is. Pure."""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, Manifest
from slotkeeper.kube.kinds import kind_of
from slotkeeper.kube.objects import Child, child, owned, with_precondition
from slotkeeper.reconcile.write.diff import Path, differences, satisfies


@dataclass(frozen=True)
class Plan:
    """What to write: `apply` in this order, then `delete`.

    Each manifest to apply is guarded, for what was found may be old news: with `metadata.uid` it
    changes only the object that was found, without one it creates but never changes.
    """

    apply: Sequence[Manifest] = ()
    delete: Sequence[Manifest] = ()
    not_owned: Sequence[Manifest] = field(default=())
    """What stands under a child's name and is not this server's: left as it is."""
    drifted: Mapping[Child, Sequence[Path]] = field(default_factory=dict)
    """Of what is to be applied, what had been applied before, just so: the fields that somebody
    changed since, none where it is gone altogether."""

    def __bool__(self) -> bool:
        return bool(self.apply or self.delete)

    def only(self, kind: Kind) -> "Plan":
        """What it applies of this kind."""
        apply = [manifest for manifest in self.apply if kind_of(manifest) == kind]
        return replace(self, apply=apply, delete=())

    @property
    def creates(self) -> bool:
        """Whether something is to be made that is not there."""
        return any("uid" not in manifest["metadata"] for manifest in self.apply)


def plan_changes(
    desired: Iterable[Manifest],
    found: Mapping[Child, Manifest],
    uid: str,
    lost: Container[Child] = (),
) -> Plan:
    """What must be written so that `found` becomes `desired`; nothing where it already is.

    `found` holds what stands under the desired names and all that is labelled as the server's;
    `uid` is the server's. Only what the server owns is ever deleted or changed. `lost` are its
    children that were there and went, without this operator having deleted them.
    """
    wanted = {child(manifest): _with_hash(manifest) for manifest in desired}
    taken = [item for key, item in found.items() if key in wanted and not owned(item, uid)]
    spoken_for = {child(item) for item in taken}
    changed = {
        key: manifest
        for key, manifest in wanted.items()
        if key not in spoken_for and not (key in found and satisfies(manifest, found[key]))
    }
    return Plan(
        apply=[with_precondition(manifest, found.get(key)) for key, manifest in changed.items()],
        delete=[
            item
            for key, item in found.items()
            if key not in wanted
            and owned(item, uid)
            and "deletionTimestamp" not in item["metadata"]
        ],
        not_owned=taken,
        drifted={
            key: list(differences(manifest, found[key])) if key in found else []
            for key, manifest in changed.items()
            if (_was_applied(manifest, found[key]) if key in found else key in lost)
        },
    )


def _was_applied(manifest: Manifest, found: Manifest) -> bool:
    """Whether this very manifest made `found`: what differs is then somebody else's doing."""
    mark = (found["metadata"].get("annotations") or {}).get(names.APPLIED_HASH_ANNOTATION)
    # Nobody but somebody else takes it away.
    return mark in {None, manifest["metadata"]["annotations"][names.APPLIED_HASH_ANNOTATION]}


def _with_hash(manifest: Manifest) -> Manifest:
    # With the hash, a field that left the manifest makes a difference: it is applied once more,
    # and the API server then drops what this field manager does not say any longer.
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    mark = {names.APPLIED_HASH_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), **mark}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
