"""Secrets, and folders of a node's cache, without which a pod does not start. Pure.

The operator may not read Secrets, and the kubelet reports what is missing only in an event. A pod's
status shows that it has a node, and since when its volumes are not mounted there.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import gateway_secrets, names
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.node_cache import folder_missing, is_on_node_cache
from slotkeeper.reconcile.observe.pods import (
    lacks_volumes,
    lacks_volumes_since,
    required_entries,
    required_secrets,
)
from slotkeeper.reconcile.observe.problem import Problem

Owner = LlamaServer | LlamaGateway

MOUNT_TIMEOUT = timedelta(minutes=1)
"""How long a pod may lack its volumes before its Secret counts as missing: setting up the pod's
network may take as long."""

DISK_TIMEOUT = timedelta(minutes=10)
"""The same for a pod with a volume that is attached to its node. Kubernetes detaches a disk from a
node that is lost after six minutes, and its driver may need some more."""

_LOCAL_VOLUMES = frozenset(
    ("name", "configMap", "downwardAPI", "emptyDir", "hostPath", "projected", "secret")
)
"""Fields of volumes that need no disk."""


def missing_secret(pods: Iterable[Manifest], owner: Owner, wall: datetime) -> Problem | None:
    """The Secret that one of the owner's pods is waiting for; not found after the timeout.

    Then also the folder of a node's cache, of a pod that needs no Secret.
    """
    found = (_problem(pod, owner, wall) for pod in _waiting_pods(pods))
    problems = [problem for problem in found if problem]
    lasting = (each for each in problems if each.reason is not Reason.WAITING_FOR_SECRET)
    return next(lasting, problems[0] if problems else None)


def not_found_in(pods: Iterable[Manifest], wall: datetime) -> float | None:
    """Seconds until another Secret, or folder, counts as not found; None where no pod is waiting
    for one."""
    left = (_not_found_in(pod, wall) for pod in _waiting_pods(pods))
    return min((seconds for seconds in left if seconds), default=None)


def _waiting_pods(pods: Iterable[Manifest]) -> Iterator[Manifest]:
    return (
        pod
        for pod in pods
        if lacks_volumes(pod) and (required_secrets(pod) or is_on_node_cache(pod))
    )


def _not_found_in(pod: Manifest, wall: datetime) -> float | None:
    """Seconds; None where the pod's status shows no time."""
    since = lacks_volumes_since(pod)
    timeout = DISK_TIMEOUT if _has_disk(pod) else MOUNT_TIMEOUT
    return None if since is None else max(0.0, (since + timeout - wall).total_seconds())


def _has_disk(pod: Manifest) -> bool:
    return any(not _LOCAL_VOLUMES.issuperset(each) for each in pod["spec"].get("volumes") or ())


def _problem(pod: Manifest, owner: Owner, wall: datetime) -> Problem | None:
    secrets = required_secrets(pod)
    if not secrets:
        return None if _not_found_in(pod, wall) != 0 else folder_missing(pod)
    entries = required_entries(pod)
    noun = "gateway" if isinstance(owner, LlamaGateway) else "server"
    missing = "what is missing" if any(entries.values()) else "it"
    remedy = f"create {missing} in the {noun}'s namespace " + " or ".join(
        dict.fromkeys(_remedy(volume, pod, owner) for volume in secrets)
    )
    if _not_found_in(pod, wall) != 0:
        found = _listed(entries, "with its entries")
        return Problem(Reason.WAITING_FOR_SECRET, f"waiting for Secret {found}: {remedy}")
    found = _listed(entries, "or one of its entries")
    return Problem(
        Reason.SECRET_NOT_FOUND,
        f"Secret {found} does not exist: {remedy}; if it exists, see the events of "
        f"kubectl describe --namespace={owner.namespace} pods/{pod['metadata']['name']}",
    )


def _listed(secrets: Mapping[str, Collection[str]], what: str) -> str:
    return " or ".join(
        f"{name} {what} {', '.join(dict.fromkeys(entries))}" if entries else name
        for name, entries in secrets.items()
    )


def _remedy(volume: str, pod: Manifest, owner: Owner) -> str:
    if isinstance(owner, LlamaGateway):
        return "(tls.secretName)" if volume == gateway_secrets.TLS_VOLUME else "(apiKeys.secretRef)"
    if pod["metadata"]["labels"].get(names.COMPONENT_LABEL) == Component.BALANCER:
        return "(balancer.apiKeys.secretName)"
    if volume == names.TOKEN_VOLUME:
        return "(model.tokenSecretRef: hosts are those that may receive the token)"
    if volume == names.S3_VOLUME:
        return "(model.s3.secretRef: hosts are those that the access key may be used for)"
    return "(podTemplate.volumes)"
