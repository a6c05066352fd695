"""What keeps all of a server's replicas from starting, as its clients are told. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reasons import PERMANENT, PERMANENT_WHEN_LOOPING
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.model import current_pods
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import (
    Problem,
    is_looping,
    is_ready,
    lacked_volumes_since,
    missing_token,
    pods_problem,
    replica_failure,
)

VOLUMES_TIMEOUT = timedelta(minutes=1)
"""How long a pod may be without its volumes before it is the Secret that it lacks: a disk that is
attached, or a network for the pod, may take as long."""


def start_blocker(
    server: LlamaServer, observed: Observed, *, wanted: int, today: datetime
) -> StartBlocker | None:
    """What keeps every replica from starting, where so many are wanted.

    None where one serves, one is on its way with nothing known to be wrong, or none is wanted. So
    each wake is a fresh try: what kept the last replica is forgotten when that one is gone.
    """
    if not observed.current:
        # Kubernetes has not even been told of one, if that was refused.
        refused = observed.rejected
        return _of(refused, lasting=refused.reason in PERMANENT) if wanted and refused else None
    if any(map(is_ready, observed.replica_pods)):
        return None
    found: list[tuple[Problem, Sequence[Manifest]]] = []
    for pods in _replicas(observed):
        trouble = pods_problem(pods, server.spec.gpu, observed.compute_arches)
        trouble = trouble or missing_token(pods, server.spec.model.secret_ref)
        if trouble is None:
            return None
        found.append((trouble, pods))
    if not found:
        refused = replica_failure(observed.replicas)
        return _of(refused, lasting=False) if refused else None
    first, _ = found[0]
    return _of(first, lasting=all(_is_permanent(*each, today) for each in found))


def permanent_in(server: LlamaServer, observed: Observed, today: datetime) -> float | None:
    """In how many seconds something that is waited for will have been missing for too long; None
    where nothing is waited for, or has been for so long already."""
    if server.spec.model.secret_ref is None:
        return None
    since = filter(None, map(lacked_volumes_since, observed.replica_pods))
    left = [(each + VOLUMES_TIMEOUT - today).total_seconds() for each in since]
    return min((seconds for seconds in left if seconds > 0), default=None)


def _of(trouble: Problem, *, lasting: bool) -> StartBlocker:
    return StartBlocker(trouble.reason, trouble.message, lasting)


def _replicas(observed: Observed) -> list[list[Manifest]]:
    """The pods of each replica: one, or a leader and its workers."""
    replicas: dict[str, list[Manifest]] = {}
    # A leader waits for its workers: their trouble is the cause.
    for pod in [*observed.worker_pods, *current_pods(observed)]:
        metadata = pod["metadata"]
        index = metadata["labels"].get(names.POD_INDEX_LABEL)
        replicas.setdefault(index or metadata["name"], []).append(pod)
    return list(replicas.values())


def _is_permanent(trouble: Problem, pods: Sequence[Manifest], today: datetime) -> bool:
    if trouble.reason is Reason.WAITING_FOR_SECRET:
        since = filter(None, map(lacked_volumes_since, pods))
        return any(today - each >= VOLUMES_TIMEOUT for each in since)
    if trouble.reason in PERMANENT_WHEN_LOOPING:
        return any(map(is_looping, pods))
    return trouble.reason in PERMANENT
