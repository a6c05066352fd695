"""What is of the current pod template of a Deployment or StatefulSet, and what is of an older one.
Pure."""

from collections.abc import Iterable, Sequence

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import STATEFUL_SETS, kind_of
from slotkeeper.reconcile.watch.kept import TEMPLATE_DIGEST, template_digest

_REVISION_LABEL = "controller-revision-hash"
"""Label of a StatefulSet's pods: the revision of their template."""


def template_hash(item: Manifest) -> str | None:
    """The hash that the operator wrote on a pod, its template or a Job; None without one."""
    annotations = item["metadata"].get("annotations") or {}
    found: str | None = annotations.get(names.TEMPLATE_HASH_ANNOTATION)
    return found


def of_current_template(
    pods: Iterable[Manifest], owner: Manifest | None, replica_sets: Sequence[Manifest]
) -> list[Manifest]:
    """Those of these pods that the owner created from its current template."""
    if owner is None:
        return []
    if kind_of(owner) == STATEFUL_SETS:
        uid, revision = owner["metadata"]["uid"], owner.get("status", {}).get("updateRevision")
        return [
            pod
            for pod in pods
            if _controller(pod) == uid
            and (pod["metadata"].get("labels") or {}).get(_REVISION_LABEL, "") == revision
        ]
    current = {each["metadata"]["uid"] for each in current_replica_sets(owner, replica_sets)}
    return [pod for pod in pods if _controller(pod) in current]


def current_replica_sets(
    deployment: Manifest, replica_sets: Sequence[Manifest]
) -> Sequence[Manifest]:
    """The ReplicaSets of the Deployment's current template: one, once it is created."""
    digest = template_digest(deployment["spec"]["template"])
    return [
        each
        for each in replica_sets
        if _controller(each) == deployment["metadata"]["uid"]
        and each["spec"][TEMPLATE_DIGEST] == digest
    ]


def _controller(item: Manifest) -> str:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(each.get("uid", "")) for each in owners if each.get("controller")), "")
