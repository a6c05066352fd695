"""EndpointSlices -> replicas: who there is, and who may get new requests."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from slotkeeper.kube.cluster import Cluster
from slotkeeper.kube.kinds import ENDPOINT_SLICES
from slotkeeper.kube.watch import list_and_watch

_PORT = "http"


def replicas_in(slices: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Replicas by `host:port`; True: it may get new requests, else it only ends what it has.

    An endpoint may stand in several slices while it moves between them: one that is ready
    somewhere is ready. A slice without a port named "http" has none of ours.
    """
    replicas: dict[str, bool] = {}
    for each in slices:
        for port in each.get("ports") or ():
            if port.get("name") != _PORT or not port.get("port"):
                continue
            for endpoint in each.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                # Unset means ready, says the API.
                ready = conditions.get("ready") is not False
                usable = ready and not conditions.get("terminating")
                for address in endpoint.get("addresses") or ():
                    host = f"[{address}]" if ":" in address else address
                    name = f"{host}:{port['port']}"
                    replicas[name] = replicas.get(name, False) or usable
    return replicas


async def replicas_of(
    cluster: Cluster, namespace: str, service: str
) -> AsyncIterator[dict[str, bool]]:
    """The replicas of a Service, at once and whenever they change. Never ends.

    While the API server does not answer the last ones stay: serving goes on without it.
    """
    labels = {"kubernetes.io/service-name": service}
    async for slices in list_and_watch(cluster, ENDPOINT_SLICES, namespace, labels):
        yield replicas_in(slices.values())
