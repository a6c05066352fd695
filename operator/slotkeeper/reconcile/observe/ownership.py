"""Which of the observed objects are a server's own. Pure."""

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import owned


def is_orphan(item: Manifest, server: LlamaServer) -> bool:
    """Whether the object is labelled as the server's child, and has no owner at all.

    So are the children of a server that was deleted with `--cascade=orphan`, and those that a
    backup tool has restored: owners have other uids then, and are left out.
    """
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    return (
        not metadata.get("ownerReferences")
        and labels.get(names.SERVER_LABEL) == server.name
        and labels.get(names.MANAGED_BY_LABEL) == FIELD_MANAGER
    )


def belongs_to(item: Manifest, server: LlamaServer) -> bool:
    """Whether the operator may change the object: the server owns it, or may adopt it."""
    return owned(item, server.uid) or is_orphan(item, server)
