"""Pods that have no node until one that terminates releases what it has. Pure."""

from collections.abc import Iterator
from datetime import datetime

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.problem import Problem

_OCCUPIED = ("Insufficient ", "Too many pods")
"""In the scheduler's message: what another pod may release."""


def unless_released(problem: Problem | None, observed: Observed, wall: datetime) -> Problem | None:
    """The problem of a server's replicas at the time of day `wall`; a reason that only waits, where
    one of its own pods is still within its grace period."""
    if problem is None or problem.reason is not Reason.UNSCHEDULABLE:
        return problem
    pod = next((pod for pod, left in _terminating(observed, wall) if left > 0), None)
    if pod is None or not any(each in problem.message for each in _OCCUPIED):
        return problem
    name = pod["metadata"]["name"]
    return Problem(
        Reason.STARTING, f"until pod {name} has terminated, no node is free: {problem.message}"
    )


def released_in(observed: Observed, wall: datetime) -> float | None:
    """Seconds until the next of these grace periods ends; None without one."""
    return min((left for _, left in _terminating(observed, wall) if left > 0), default=None)


def _terminating(observed: Observed, wall: datetime) -> Iterator[tuple[Manifest, float]]:
    for pod in observed.terminating_pods:
        due = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
        yield pod, (due - wall).total_seconds()
