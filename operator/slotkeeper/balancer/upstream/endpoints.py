"""Discovery of replicas from a Service's EndpointSlices."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from slotkeeper.kube.cluster import Cluster
from slotkeeper.kube.kinds import ENDPOINT_SLICES
from slotkeeper.kube.watch import list_and_watch

_PORT = "http"


def replicas_in(slices: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the replicas by `host:port`; False: it only completes its current requests.

    An endpoint may be in several slices while it moves between them: if it is ready in one, it is
    ready. Slices without a port named "http" contain no replicas.
    """
    replicas: dict[str, bool] = {}
    for each in slices:
        for port in each.get("ports") or ():
            if port.get("name") != _PORT or not port.get("port"):
                continue
            for endpoint in each.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                # The API defines unset as ready.
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
    """Yield the replicas of a Service, at once and after each change. Never ends.

    While the API server is unreachable the last ones stay in use: serving does not depend on it.
    """
    labels = {"kubernetes.io/service-name": service}
    async for slices in list_and_watch(cluster, ENDPOINT_SLICES, namespace, labels):
        yield replicas_in(slices.values())
