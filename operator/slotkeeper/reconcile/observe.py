"""What there is in the cluster for one server. The only reader."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Cluster, Kind, Manifest
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, STATEFUL_SETS
from slotkeeper.reconcile.plan import Child, child, owned
from slotkeeper.reconcile.queue import Key


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

    @property
    def current(self) -> int | None:
        """How many replicas the Deployment is set to; None without one."""
        return None if self.replicas is None else int(self.replicas["spec"].get("replicas", 1))


async def read_server(cluster: Cluster, key: Key) -> Manifest | None:
    """The server itself; None where it is gone."""
    return await cluster.get(LLAMA_SERVERS, key.namespace, key.name)


async def observe(cluster: Cluster, server: LlamaServer, expected: Iterable[Manifest]) -> Observed:
    """Read what there is; `expected` are the children that the server should have."""
    labels = {names.SERVER_LABEL: server.name}

    async def labelled(kind: Kind) -> list[Manifest]:
        return (await cluster.list(kind, server.namespace, labels)).items

    listed = await asyncio.gather(*map(labelled, (*CHILDREN, PODS)))
    *children, pods = listed
    found = {child(item): item for items in children for item in items}
    # What lost its label, or never had it, does not show in the lists.
    hidden = [key for key in map(child, expected) if key not in found]
    gets = (cluster.get(kind, server.namespace, name) for kind, name in hidden)
    found |= {
        key: item
        for key, item in zip(hidden, await asyncio.gather(*gets), strict=True)
        if item is not None
    }
    replicas = found.get(_replicas_of(server))
    return Observed(
        children=found,
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
