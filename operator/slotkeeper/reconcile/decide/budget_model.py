"""A server as its gateway's budget sees it: replicas, resources, demand, load time. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from slotkeeper.api import quantity
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import condition, is_ready
from slotkeeper.scaling.budget.observation import Model
from slotkeeper.scaling.budget.resources import Resources


def replica_cost(server: LlamaServer) -> Resources:
    """GPUs and memory of one replica, with its workers."""
    spec = server.spec
    pods = 1 + (spec.workers.count if spec.workers else 0)
    memory = spec.resources.requests.get("memory") or spec.resources.limits.get("memory") or 0
    return Resources(gpus=spec.gpu.count * pods, memory=float(quantity.parse(memory)) * pods)


def budget_model(
    name: str,
    server: LlamaServer,
    observed: Observed,
    terminating: Sequence[Manifest],
    demand: ServerDemand | None,
) -> Model:
    """The server's replicas and requests, without what its own autoscaling requires.

    Pods beyond the replicas of the Deployment count as terminating, and those occupy their
    resources until they are deleted. Without a current report all replicas count as in use, so that
    none is removed.
    """
    current = observed.current or 0
    pods = observed.replica_pods
    ready = min(sum(map(is_ready, pods)), current)
    model = Model(
        name,
        replica_cost(server),
        ready=ready,
        starting=current - ready,
        stopping=len(terminating) + max(len(pods) - current, 0),
    )
    if demand is None:
        return replace(model, busy=current, busy_replicas=current)
    sample, by_replica = demand.sample, demand.busy_by_replica
    return replace(
        model,
        busy=sample.busy_slots,
        # Not reported by name, each busy slot may be on another replica.
        busy_replicas=min(sample.busy_slots if by_replica is None else len(by_replica), ready),
        queued=sample.queued,
        preemptible=sample.preemptible,
        oldest_queued_seconds=sample.oldest_queued_seconds,
        demand=sample.offered_load,
    )


def load_seconds(pods: Sequence[Manifest]) -> float | None:
    """Return the shortest time from a pod's creation until it was ready; None without one."""
    found = []
    for pod in pods:
        created = pod["metadata"].get("creationTimestamp")
        ready = condition(pod, "Ready").get("lastTransitionTime")
        if is_ready(pod) and created and ready:
            found.append(datetime.fromisoformat(ready) - datetime.fromisoformat(created))
    return min((each.total_seconds() for each in found), default=None)
