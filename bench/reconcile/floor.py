"""The floor: a plain client that applies the very manifests that the operator would apply."""

import time
from dataclasses import dataclass

from bench.reconcile.bed import apply_all
from bench.reconcile.servers import servers
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.runtime import WORKERS

IMAGES = Images(llama_server="llama-server:1", balancer="balancer:1", download="model:1")


@dataclass(frozen=True)
class Floor:
    """How long the plain client took."""

    seconds: float
    manifests: int


async def measure(cluster: ApiCluster, count: int) -> Floor:
    """Apply the children of so many servers, which are there already; nobody else looks after them.

    As many requests at the same time as the operator has workers.
    """
    applied = await apply_all(cluster, servers(count), WORKERS)
    wanted = [child for server in applied for child in children(server)]
    began = time.monotonic()
    await apply_all(cluster, wanted, WORKERS)
    return Floor(time.monotonic() - began, len(wanted))


def children(raw: Manifest) -> list[Manifest]:
    """What the operator makes of a server."""
    server = LlamaServer.parse(raw)
    scaling = server.spec.autoscaling
    replicas = scaling.min_replicas if scaling else server.spec.replicas
    return manifests(server, replicas, IMAGES)
