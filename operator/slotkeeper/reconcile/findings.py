"""What holds of a server and what does not: its conditions without their times. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from slotkeeper.api.conditions import ConditionType, Finding
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe import Observed
from slotkeeper.reconcile.pods import (
    Trouble,
    awaited_secret,
    fetch_command,
    fetched,
    first_trouble,
    is_fetching,
    is_ready,
    model_trouble,
    refusal,
)

IN_PROGRESS = frozenset(
    {"Pending", "Replacing", "Downloading", "Starting", "Loading", "Updating", "ScaledToZero"}
    | {"WaitingForSecret", "Suspended"}
)
"""Reasons that time alone will change, or that somebody wants. All other ones are troubles."""


def findings(server: LlamaServer, observed: Observed, refused: Trouble | None) -> list[Finding]:
    """All conditions of a valid server; `refused` is why one of its children could not be made."""
    if server.spec.suspend and not refused:
        return _suspended()
    parts = [_model(observed), _replicas(server, observed), _balancer(server, observed)]
    return [_ready(server, parts, refused), *parts]


def invalid(message: str) -> list[Finding]:
    """All conditions of a server that says what cannot be."""
    others = (kind for kind in ConditionType if kind is not ConditionType.READY)
    return [
        Finding(ConditionType.READY, "False", "InvalidSpec", message),
        *(Finding(kind, "Unknown", "InvalidSpec", message) for kind in others),
    ]


def condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of this type in a status as it was read; empty where there is none."""
    return next((found for found in status.get("conditions", []) if found["type"] == kind), {})


def _suspended() -> list[Finding]:
    message = "neither replicas nor balancers run while spec.suspend is true"
    return [Finding(kind, "False", "Suspended", message) for kind in ConditionType]


def _ready(server: LlamaServer, parts: Sequence[Finding], refused: Trouble | None) -> Finding:
    if refused:
        return _not(ConditionType.READY, refused)
    lacking = (part for part in parts if part.status != "True")
    # A trouble rather than what waits for it: no model is downloaded where no pod has a node.
    worst = min(lacking, key=lambda part: part.reason in IN_PROGRESS, default=None)
    if worst:
        return Finding(ConditionType.READY, "False", worst.reason, worst.message)
    return Finding(ConditionType.READY, "True", "Serving", f"serves at {names.endpoint(server)}")


def _model(observed: Observed) -> Finding:
    kind = ConditionType.MODEL_READY
    pods = _current(observed)
    if any(map(fetched, pods)):
        return Finding(kind, "True", "Downloaded", "the model is downloaded and checked")
    for pod in pods:
        if failure := model_trouble(pod):
            return _not(kind, failure)
    if any(map(is_fetching, pods)):
        return Finding(kind, "False", "Downloading", "the model is being downloaded")
    if observed.current == 0:
        return Finding(kind, "Unknown", "ScaledToZero", "no replica runs that would download it")
    return Finding(kind, "False", "Pending", "no replica has begun to download the model")


def _replicas(server: LlamaServer, observed: Observed) -> Finding:
    kind = ConditionType.REPLICAS_READY
    if observed.replicas is None:
        return Finding(kind, "False", "Pending", "no replica has been started")
    status = observed.replicas.get("status", {})
    before = condition(server.status, kind)
    seen = status.get("observedGeneration", 0) >= observed.replicas["metadata"]["generation"]
    if not seen and before.get("observedGeneration") == server.generation:
        # Kubernetes has yet to count what the scaler asked for: that makes nothing less ready.
        return Finding(kind, before["status"], before["reason"], before["message"])
    bounds = server.spec.autoscaling
    # More than the least is the scaler's business: a busy server that grows is no less ready.
    # But the first one of none is what its requests wait for.
    least = max(bounds.min_replicas, min(observed.current or 0, 1)) if bounds else None
    needed = server.spec.replicas if least is None else least
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    counted = f"{ready} of {observed.current} replicas ready"
    # A leader waits for its workers: their trouble is the cause.
    pods = [*observed.worker_pods, *observed.replica_pods]
    failure = refusal(observed.replicas) or first_trouble(pods, server.spec.gpu)
    rest = f"; {failure.message}" if failure else ""
    if seen and min(ready, updated) >= needed and updated == status.get("replicas", 0):
        reason = "AsWanted" if observed.current else "ScaledToZero"
        return Finding(kind, "True", reason, counted + rest)
    if failure:
        return Finding(kind, "False", failure.reason, counted + rest)
    if ready >= needed:
        reason, rest = "Updating", f", {updated} of them as specified now"
    elif any(map(fetched, _current(observed))):
        reason, rest = "Loading", "; the model is being loaded"
    else:
        reason = "Starting"
    return Finding(kind, "False", reason, counted + rest)


def _balancer(server: LlamaServer, observed: Observed) -> Finding:
    kind = ConditionType.BALANCER_READY
    ready = sum(map(is_ready, observed.balancer_pods))
    failure = first_trouble(observed.balancer_pods, Gpu(count=0)) or awaited_secret(
        observed.balancer_pods
    )
    if ready:
        # The others only stand by: one takes all requests.
        counted = f"{ready}/{server.spec.balancer.replicas} balancers take requests"
        rest = f"; {failure.message}" if failure else ""
        return Finding(kind, "True", "TakesRequests", counted + rest)
    if failure:
        return _not(kind, failure)
    return Finding(kind, "False", "Starting", "the balancer is being started")


def _current(observed: Observed) -> list[Manifest]:
    """The pods with the model that is wanted now, without those of an older spec."""
    if observed.replicas is None:
        return []
    wanted = fetch_command(observed.replicas["spec"]["template"])
    return [pod for pod in observed.replica_pods if fetch_command(pod) == wanted]


def _not(kind: ConditionType, found: Trouble) -> Finding:
    return Finding(kind, "False", found.reason, found.message)
