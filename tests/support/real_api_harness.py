"""Helpers for tests of the reconciler on a real API server."""

from typing import Any

from apiserver import ApiServer
from gateway_harness import GATEWAY
from llamagateways import raw_gateway
from llamaservers import raw_server
from operator_harness import KEY
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest


def create_server(api: ApiServer, **spec: Any) -> Manifest:
    """Create the server KEY as a user; return the stored object."""
    response = api.post(
        "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamaservers",
        raw_server(KEY.name, **spec),
    )
    assert response.status_code == 201, response.text
    created: Manifest = response.json()
    return created


def create_gateway(api: ApiServer, **spec: Any) -> Manifest:
    """Create the gateway GATEWAY as a user; return the stored object."""
    response = api.post(
        "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamagateways",
        raw_gateway(GATEWAY.name, **spec),
    )
    assert response.status_code == 201, response.text
    created: Manifest = response.json()
    return created


class CountingCluster:
    """Forwards all calls to an ApiCluster and records the writes."""

    def __init__(self, cluster: ApiCluster) -> None:
        self.writes: list[str] = []
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        if name in {"apply", "create", "delete", "patch_status"}:
            self.writes.append(name)
        return getattr(self._cluster, name)
