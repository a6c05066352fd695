"""What there is in the cluster for one server, as the store knows it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, STATEFUL_SETS
from slotkeeper.kube.objects import Child, Key, owned
from slotkeeper.reconcile.observe.pods import Problem
from slotkeeper.reconcile.watch.store import Store


@dataclass(frozen=True)
class Observed:
    """One server's part of the cluster."""

    children: Mapping[Child, Manifest]
    """What carries the server's label or stands under a child's name, whoever owns it."""
    replica_pods: list[Manifest]
    balancer_pods: list[Manifest]
    worker_pods: list[Manifest]
    """Pods, without those that are about to go."""
    replicas: Manifest | None
    """The replicas' Deployment, or the StatefulSet of those that have workers."""
    compute_arches: Sequence[str] | None = None
    """Compute capabilities of the cluster's GPUs, where a replica waits for one; else None."""
    rejected: Problem | None = None
    """Why one of the children could not be made."""
    conflict: Problem | None = None
    """Who undoes, again and again, what a child should be."""

    @property
    def current(self) -> int | None:
        """How many replicas the Deployment is set to; None without one."""
        return None if self.replicas is None else int(self.replicas["spec"].get("replicas", 1))


def observe(store: Store, server: LlamaServer, hidden: Mapping[Child, Manifest]) -> Observed:
    """What there is; `hidden` is what stands under a child's name without the server's label."""
    key = Key(server.namespace, server.name)
    children = {**hidden, **store.children(key)}
    pods = store.pods(key)
    replicas = children.get(_replicas_of(server))
    return Observed(
        children=children,
        replica_pods=_of(Component.REPLICA, pods),
        balancer_pods=_of(Component.BALANCER, pods),
        worker_pods=_of(Component.WORKER, pods),
        replicas=replicas if replicas and owned(replicas, server.uid) else None,
    )


def _replicas_of(server: LlamaServer) -> Child:
    if server.spec.workers:
        return STATEFUL_SETS, names.leaders(server)
    return DEPLOYMENTS, names.replicas(server)


def _of(component: Component, pods: Iterable[Manifest]) -> list[Manifest]:
    return [
        pod
        for pod in pods
        if pod["metadata"]["labels"].get(names.COMPONENT_LABEL) == component
        and "deletionTimestamp" not in pod["metadata"]
    ]
