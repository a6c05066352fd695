"""Which of the observed objects are a resource's own. Pure."""

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.api.resource import Resource
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import owned


def is_orphan(item: Manifest, owner: Resource) -> bool:
    """Whether the object is labelled as the resource's child, and has no owner at all.

    So are the children of a resource that was deleted with `--cascade=orphan`, and those that a
    backup tool has restored: owners have other uids then, and are left out.
    """
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    return (
        not metadata.get("ownerReferences")
        and labels.get(names.OWNER_LABELS[owner.kind]) == owner.name
        and labels.get(names.MANAGED_BY_LABEL) == FIELD_MANAGER
    )


def belongs_to(item: Manifest, owner: Resource) -> bool:
    """Whether the operator may change the object: the resource owns it, or may adopt it."""
    return owned(item, owner.uid) or is_orphan(item, owner)
