"""What exists in the cluster for one gateway, from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS
from slotkeeper.kube.objects import Child, Key
from slotkeeper.reconcile.gateways.models import Models
from slotkeeper.reconcile.observe.own_pods import own_pods
from slotkeeper.reconcile.observe.ownership import belongs_to
from slotkeeper.reconcile.watch.store import Store


@dataclass(frozen=True)
class Observed:
    """A valid gateway and what exists for it, read once at the start of a pass."""

    raw: Manifest
    """The gateway as it was read."""
    gateway: LlamaGateway
    children: Mapping[Child, Manifest]
    """All objects with the gateway's label or a child's name, whatever their owner."""
    pods: Sequence[Manifest]
    """Pods of the gateway's Deployment, without those that are terminating."""
    deployment: Manifest | None
    batches_pods: Sequence[Manifest]
    """Pods of the Deployment for batches, without those that are terminating."""
    batches_deployment: Manifest | None
    replica_sets: Sequence[Manifest]
    unlabelled: Mapping[Child, Manifest]
    """The children that lack the gateway's label, so that no watch shows them."""
    deleted_by_others: Sequence[Child]
    models: Models

    @property
    def is_reported(self) -> bool:
        """Whether a status was written before: the gateway is not new."""
        return "observedGeneration" in self.gateway.status


def observe(
    store: Store,
    raw: Manifest,
    gateway: LlamaGateway,
    models: Models,
    unlabelled: Mapping[Child, Manifest],
) -> Observed:
    """Read the store; `unlabelled` are the children that it cannot have."""
    key = Key(gateway.namespace, gateway.name)
    children = {**unlabelled, **store.children(key)}
    own = (DEPLOYMENTS, names.gateway(gateway))
    replica_sets = store.replica_sets(key)
    batches = (DEPLOYMENTS, names.batches(gateway))
    workloads = [(own, Component.GATEWAY), (batches, Component.BATCHES)]
    pods = own_pods(store, gateway, children, workloads, replica_sets)

    def owned(child: Child) -> Manifest | None:
        found = children.get(child)
        return found if found and belongs_to(found, gateway) else None

    return Observed(
        raw=raw,
        gateway=gateway,
        children=children,
        pods=pods[Component.GATEWAY],
        deployment=owned(own),
        batches_pods=pods[Component.BATCHES],
        batches_deployment=owned(batches),
        replica_sets=replica_sets,
        unlabelled=unlabelled,
        deleted_by_others=store.deleted_by_others(key, gateway.uid),
        models=models,
    )
