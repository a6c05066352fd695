"""Which replica a scale-down removes: Kubernetes deletes the pod with the lowest deletion cost."""

import logging
from collections.abc import Iterable, Iterator, Mapping

from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.reconcile.watch.store import Store

log = logging.getLogger(__name__)


async def set_deletion_costs(
    cluster: Cluster, store: Store, pods: Iterable[Manifest], demand: ServerDemand | None
) -> None:
    """Annotate these replicas' pods with their busy slots, where the annotation differs.

    Without a report of busy slots, or where a pod cannot be written, the scale-down goes on: any
    replica is drained. A StatefulSet removes its pods by their number, whatever their cost.
    """
    if demand is None or demand.busy_by_replica is None:
        return
    for manifest in costs(pods, demand.busy_by_replica):
        try:
            store.put(await cluster.apply(manifest))
        except ApiError as error:
            name = manifest["metadata"]["name"]
            log.warning("cannot set the deletion cost of pod %s: %s", name, error)


def costs(pods: Iterable[Manifest], busy: Mapping[str, int]) -> Iterator[Manifest]:
    """The manifests to apply to the ready pods, without the pods that have this cost already.

    `busy`: busy slots by HOST:PORT, without idle replicas.
    """
    for pod in filter(is_ready, pods):
        cost = str(busy.get(address(pod, names.LLAMA_SERVER_PORT), 0))
        metadata = pod["metadata"]
        annotations = metadata.get("annotations") or {}
        if cost != annotations.get(names.DELETION_COST_ANNOTATION, "0"):
            yield {
                "apiVersion": pod["apiVersion"],
                "kind": pod["kind"],
                "metadata": {
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    # A precondition: no other pod of this name is changed, and none created.
                    "uid": metadata["uid"],
                    "annotations": {names.DELETION_COST_ANNOTATION: cost},
                },
            }
