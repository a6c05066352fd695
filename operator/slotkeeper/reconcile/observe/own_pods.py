"""Which pods are a resource's own.

Users who may create a pod may give it any label. What a pod reports is believed, and requested
from its address, only if its controllers up to one of the resource's Deployments or StatefulSets
are the ones that exist, by their uids: a pod's owner cannot be changed by who only creates pods.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from slotkeeper.api.resource import Resource
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection, names, prefetch
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS, STATEFUL_SETS
from slotkeeper.kube.objects import Child, Key, owned
from slotkeeper.reconcile.watch.store import Store

Workloads = Iterable[tuple[Child, Component]]


def own_pods(
    store: Store,
    owner: Resource,
    children: Mapping[Child, Manifest],
    workloads: Workloads,
    replica_sets: Sequence[Manifest],
    *,
    terminating: bool = False,
) -> dict[Component, list[Manifest]]:
    """Return the resource's pods by component: those that are `terminating`, or all others.

    `workloads`: the children that create them.
    """
    key = Key(owner.namespace, owner.name)
    components = {
        children[child]["metadata"]["uid"]: component
        for child, component in workloads
        if child in children and owned(children[child], owner.uid)
    }
    for replica_set in replica_sets:
        if component := _controller_in(replica_set, components):
            components[replica_set["metadata"]["uid"]] = component
    pods: dict[Component, list[Manifest]] = {component: [] for component in Component}
    for pod in store.pods(key):
        component = _controller_in(pod, components)
        if component and ("deletionTimestamp" in pod["metadata"]) == terminating:
            pods[component].append(pod)
    return pods


def workloads(server: LlamaServer) -> Iterator[tuple[Child, Component]]:
    """The objects that create a server's pods."""
    yield (DEPLOYMENTS, names.balancer(server)), Component.BALANCER
    yield (JOBS, prefetch.name(server)), Component.PREFETCH
    yield (JOBS, inspection.name(server)), Component.INSPECTION
    if server.spec.workers is None:
        yield (DEPLOYMENTS, names.replicas(server)), Component.REPLICA
        return
    yield (STATEFUL_SETS, names.leaders(server)), Component.REPLICA
    for number in range(server.spec.workers.count):
        yield (STATEFUL_SETS, names.worker(server, number)), Component.WORKER


def _controller_in(item: Manifest, components: Mapping[str, Component]) -> Component | None:
    owners: Iterable[Manifest] = item["metadata"].get("ownerReferences") or ()
    uids = (owner.get("uid", "") for owner in owners if owner.get("controller"))
    return next((components[uid] for uid in uids if uid in components), None)
