"""What keeps all of a server's replicas from starting, as its clients are told. Pure."""

from collections.abc import Sequence

from slotkeeper.api.obstacle import Obstacle
from slotkeeper.api.reasons import LASTING, LASTING_IN_A_LOOP
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.model_report import current_pods
from slotkeeper.reconcile.observe import Observed
from slotkeeper.reconcile.pods import Trouble, is_looping, is_ready, pods_trouble, refusal


def obstacle(server: LlamaServer, observed: Observed) -> Obstacle | None:
    """What keeps every replica from starting.

    None where one serves, one is on its way with nothing known to be wrong, or none is wanted. So
    each wake is a fresh try: what kept the last replica is forgotten when that one is gone.
    """
    if not observed.current or any(map(is_ready, observed.replica_pods)):
        return None
    found: list[tuple[Trouble, Sequence[Manifest]]] = []
    for pods in _replicas(observed):
        trouble = pods_trouble(pods, server.spec.gpu, observed.compute_arches)
        if trouble is None:
            return None
        found.append((trouble, pods))
    if not found:
        refused = refusal(observed.replicas)
        return Obstacle(refused.reason, refused.message, lasting=False) if refused else None
    first, _ = found[0]
    return Obstacle(first.reason, first.message, lasting=all(_lasts(*each) for each in found))


def _replicas(observed: Observed) -> list[list[Manifest]]:
    """The pods of each replica: one, or a leader and its workers."""
    replicas: dict[str, list[Manifest]] = {}
    # A leader waits for its workers: their trouble is the cause.
    for pod in [*observed.worker_pods, *current_pods(observed)]:
        metadata = pod["metadata"]
        index = metadata["labels"].get(names.POD_INDEX_LABEL)
        replicas.setdefault(index or metadata["name"], []).append(pod)
    return list(replicas.values())


def _lasts(trouble: Trouble, pods: Sequence[Manifest]) -> bool:
    if trouble.reason in LASTING_IN_A_LOOP:
        return any(map(is_looping, pods))
    return trouble.reason in LASTING
