"""EndpointSlices -> replicas: who there is, and who may get new requests."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from slotkeeper.kube.cluster import ApiError, Cluster, Gone
from slotkeeper.kube.kinds import ENDPOINT_SLICES

_log = logging.getLogger(__name__)
_PORT = "http"
_LONGEST_PAUSE = 5.0


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


async def follow(
    cluster: Cluster, namespace: str, service: str, changed: Callable[[dict[str, bool]], None]
) -> None:
    """Call `changed` with the replicas of a Service, at once and whenever they change. Never ends.

    While the API server does not answer the last ones stay: serving goes on without it. Whatever
    ends a watch, all is listed again, so that no lost event is missed for long.
    """
    labels = {"kubernetes.io/service-name": service}
    pause = 0.1
    while True:
        try:
            listing = await cluster.list(ENDPOINT_SLICES, namespace, labels)
            slices = {each["metadata"]["name"]: each for each in listing.items}
            changed(replicas_in(slices.values()))
            watch = cluster.watch(ENDPOINT_SLICES, namespace, labels, listing.resource_version)
            async for event in watch:
                pause = 0.1
                if event.type == "BOOKMARK":
                    continue
                name = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    slices.pop(name, None)
                else:
                    slices[name] = event.object
                changed(replicas_in(slices.values()))
        except Gone:
            pass  # that is what listing again is for
        except ApiError as error:
            _log.warning("EndpointSlices of %s/%s: %s", namespace, service, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
