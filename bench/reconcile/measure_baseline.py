"""Measures the baseline: a plain client that applies the manifests that the operator applies."""

import time
from dataclasses import dataclass

from bench.reconcile.servers import servers
from bench.reconcile.testbed import apply_all
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.workqueue import WORKERS

IMAGES = Images(
    llama_server="llama-server:1",
    balancer="balancer:1",
    download="model:1",
    by_vendor={"nvidia": "llama-server:1-cuda"},
)


@dataclass(frozen=True)
class BaselineResult:
    """Duration and number of manifests of the plain client."""

    seconds: float
    manifests: int


async def measure(cluster: ApiCluster, count: int) -> BaselineResult:
    """Apply the children of `count` existing servers, without an operator running.

    The number of concurrent requests is that of the operator's workers.
    """
    applied = await apply_all(cluster, servers(count), WORKERS)
    desired = [child for server in applied for child in children(server)]
    began = time.monotonic()
    await apply_all(cluster, desired, WORKERS)
    return BaselineResult(time.monotonic() - began, len(desired))


def children(raw: Manifest) -> list[Manifest]:
    """Return the manifests that the operator applies for a server."""
    server = LlamaServer.parse(raw)
    scaling = server.spec.autoscaling
    replicas = scaling.min_replicas if scaling else server.spec.replicas
    return manifests(server, replicas, IMAGES)
