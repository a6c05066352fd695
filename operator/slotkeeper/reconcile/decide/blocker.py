"""What blocks all of a server's replicas from starting, for its clients' error responses. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.api.problem_reasons import PERMANENT, PERMANENT_WHEN_LOOPING, Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import ROLES
from slotkeeper.reconcile.decide.replicas import DesiredReplicas
from slotkeeper.reconcile.observe.missing_secrets import missing_secret
from slotkeeper.reconcile.observe.model import current_pods
from slotkeeper.reconcile.observe.node_cache import is_of_node
from slotkeeper.reconcile.observe.observed import Observed, updated_pods
from slotkeeper.reconcile.observe.pod_problems import (
    creation_failure,
    is_crash_looping,
    pods_problem,
)
from slotkeeper.reconcile.observe.pods import condition, container_statuses, is_ready
from slotkeeper.reconcile.observe.prefetch import prefetch_state
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.observe.terminating import unless_released

_REACHABLE = timedelta(seconds=30)
"""Maximum time after which a ready pod is reachable by its name: as long as a cluster's DNS usually
caches records."""


def start_blocker(
    server: LlamaServer,
    observed: Observed,
    *,
    desired: DesiredReplicas,
    rejected: Problem | None,
    wall: datetime,
) -> StartBlocker | None:
    """What blocks every replica from starting, where `desired` replicas should run.

    None where one is ready, one may still become so, or none is desired. So each wake from zero is
    a new try: the blocker of the last replica ends with its pod. Known before a try is only what
    exceeds the budget of a gateway, and what the prefetch Job has shown.
    """
    if problem := budget_problem(observed, desired):
        return _blocker(problem, permanent=True)
    if problem := observed.unchosen:
        return _unchosen(problem, observed)
    if not observed.current:
        # The Deployment itself could not be written, or the Job shows what a replica will meet.
        known = rejected if desired.replicas else _prefetch_problem(server, observed, wall)
        return _blocker(known, permanent=known.reason in PERMANENT) if known else None
    if any(map(is_ready, observed.replica_pods)):
        return None
    pods = updated_pods(observed)
    if not pods:
        failure = creation_failure([observed.replicas, *observed.workers], observed.replica_sets)
        if failure:
            return _blocker(failure, permanent=False)
        # Those of an older template with the same model.
        pods = [*observed.worker_pods, *current_pods(observed)]
    return _common_blocker(server, observed, _replicas(pods), wall)


def budget_problem(observed: Observed, desired: DesiredReplicas) -> Problem | None:
    """Why no replica fits into the budget of the server's gateway; None where one does, or runs."""
    if observed.current or not desired.exceeds_budget:
        return None
    return Problem(Reason.EXCEEDS_BUDGET, desired.exceeds_budget)


def _unchosen(problem: Problem, observed: Observed) -> StartBlocker | None:
    """The blocker where there is no choice for `auto`; replicas of an older spec serve."""
    if any(map(is_ready, observed.replica_pods)) or problem.reason is Reason.READING_HEADER:
        return None
    return _blocker(problem, permanent=problem.reason in PERMANENT)


def _prefetch_problem(server: LlamaServer, observed: Observed, wall: datetime) -> Problem | None:
    state = None if server.spec.suspend else prefetch_state(server, observed, wall)
    blocker = state.blocker if state else None
    return None if blocker and is_of_node(blocker, server) else blocker


def published_blocker(server: LlamaServer, observed: Observed) -> StartBlocker | None:
    """The blocker on the balancers' Role now."""
    role = observed.children.get((ROLES, names.balancer(server)), {})
    annotations = role.get("metadata", {}).get("annotations") or {}
    return StartBlocker.from_annotation(annotations.get(START_BLOCKER_ANNOTATION))


def _common_blocker(
    server: LlamaServer, observed: Observed, replicas: Sequence[Sequence[Manifest]], wall: datetime
) -> StartBlocker | None:
    """What blocks each of these replicas; None where one may start, or there is none."""
    found: list[tuple[Problem, Sequence[Manifest]]] = []
    for pods in replicas:
        problem = pods_problem(
            pods, server.spec.gpu, observed.compute_arches, observed.too_small_memory
        )
        problem = unless_released(problem, observed, wall) or missing_secret(pods, server, wall)
        if problem is None or problem.reason is Reason.STARTING:
            return None
        found.append((problem, pods))
    if not found:
        return None
    first, _ = found[0]
    return _blocker(first, permanent=all(_is_permanent(*each) for each in found))


def _blocker(problem: Problem, *, permanent: bool) -> StartBlocker:
    return StartBlocker(problem.reason, problem.message, permanent)


def _replicas(pods: Sequence[Manifest]) -> list[list[Manifest]]:
    """The pods of each replica: one, or a leader after its workers."""
    replicas: dict[str, list[Manifest]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        index = metadata["labels"].get(names.POD_INDEX_LABEL)
        replicas.setdefault(index or metadata["name"], []).append(pod)
    return list(replicas.values())


def _is_permanent(problem: Problem, pods: Sequence[Manifest]) -> bool:
    if problem.reason in PERMANENT_WHEN_LOOPING:
        looping = [pod for pod in pods if is_crash_looping(pod)]
        return any(not _lacked_worker(pod, pods) for pod in looping)
    return problem.reason in PERMANENT


def _lacked_worker(pod: Manifest, replica: Sequence[Manifest]) -> bool:
    """Whether a pod is a leader whose last end was while one of its workers was away, or not yet
    reachable by its name: a leader may end again and again until they are back."""
    states = [
        state
        for status in container_statuses(pod)
        if status["name"] == names.LLAMA_SERVER_CONTAINER
        for state in (status.get("state", {}), status.get("lastState", {}))
    ]
    ends = [state.get("terminated", {}).get("finishedAt") or "" for state in states]
    last = max(ends, default="")
    if not last:
        return False
    before = datetime.fromisoformat(last) - _REACHABLE
    return any(
        not is_ready(worker) or _is_ready_since(worker, before)
        for worker in replica
        if worker is not pod
    )


def _is_ready_since(pod: Manifest, time: datetime) -> bool:
    """Whether a ready pod was not ready before this time."""
    since: str | None = condition(pod, "Ready").get("lastTransitionTime")
    return since is not None and datetime.fromisoformat(since) >= time
