"""Of too many replicas the idlest goes: Kubernetes takes the pod whose deletion costs least."""

import logging
from collections.abc import Iterable, Iterator, Mapping

from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.reconcile.watch.store import Store

log = logging.getLogger(__name__)


async def set_deletion_costs(
    cluster: Cluster, store: Store, pods: Iterable[Manifest], reading: ServerDemand | None
) -> None:
    """Say of these replicas' pods what each one's deletion costs, where that is said otherwise.

    Where nothing is known of their slots, or a pod cannot be written, a scale-down goes on all the
    same: it drains whichever goes. A StatefulSet's pods go by their number, whatever they say.
    """
    if reading is None or reading.busy_by_replica is None:
        return
    for manifest in costs(pods, reading.busy_by_replica):
        try:
            store.put(await cluster.apply(manifest))
        except ApiError as error:
            log.warning("no deletion cost for pod %s: %s", manifest["metadata"]["name"], error)


def costs(pods: Iterable[Manifest], busy: Mapping[str, int]) -> Iterator[Manifest]:
    """What is to be applied to the pods that serve, without those that say the same already.

    `busy` has the slots that work, by HOST:PORT; who is not in it is idle.
    """
    for pod in filter(is_ready, pods):
        cost = str(busy.get(address(pod, names.LLAMA_SERVER_PORT), 0))
        metadata = pod["metadata"]
        said = (metadata.get("annotations") or {}).get(names.DELETION_COST_ANNOTATION, "0")
        if cost != said:
            yield {
                "apiVersion": pod["apiVersion"],
                "kind": pod["kind"],
                "metadata": {
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    # It changes that pod alone, and makes none.
                    "uid": metadata["uid"],
                    "annotations": {names.DELETION_COST_ANNOTATION: cost},
                },
            }
