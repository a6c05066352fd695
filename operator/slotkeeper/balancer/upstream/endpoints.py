"""Discovery of replicas from a Service's EndpointSlices."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from slotkeeper.wire.sockets import join

_PORT = "http"


def replicas_in(slices: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the replicas by `host:port`; False: it only completes its current requests.

    An endpoint may be in several slices while it moves between them: if it is ready in one, it is
    ready. Slices without a port named "http" contain no replicas.
    """
    replicas: dict[str, bool] = {}
    for name, conditions in _endpoints(slices):
        # The API defines unset as ready.
        ready = conditions.get("ready") is not False
        usable = ready and not conditions.get("terminating")
        replicas[name] = replicas.get(name, False) or usable
    return replicas


def terminating_in(slices: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the replicas whose pod is being deleted. One that crashed is only not ready."""
    return frozenset(
        name for name, conditions in _endpoints(slices) if conditions.get("terminating")
    )


def service_labels(service: str) -> dict[str, str]:
    """Return the labels of a Service's EndpointSlices."""
    return {"kubernetes.io/service-name": service}


def _endpoints(
    slices: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield `host:port` and the conditions of each endpoint."""
    for each in slices:
        for port in each.get("ports") or ():
            if port.get("name") != _PORT or not port.get("port"):
                continue
            for endpoint in each.get("endpoints") or ():
                for address in endpoint.get("addresses") or ():
                    yield join(address, port["port"]), endpoint.get("conditions") or {}
