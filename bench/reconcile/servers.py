"""The LlamaServers of a run: a mix of typical specs, the same in each run."""

from slotkeeper.api.group import API_VERSION, KIND
from slotkeeper.kube.cluster import Manifest

NAMESPACES = 20

_URL = "https://models.example.com/model.gguf"

MIX: tuple[Manifest, ...] = (
    {"gpu": {"count": 0}, "resources": {"limits": {"cpu": 2, "memory": "4Gi"}}},
    {"contextPerSlot": 8192, "gpu": {"count": 1, "computeArch": "7.5"}},
    {"gpu": {"count": 1}, "autoscaling": {"minReplicas": 1, "maxReplicas": 4}},
    {"gpu": {"count": 2}, "kvCacheType": "q8_0", "balancer": {"maxQueuedRequests": 200}},
)
"""Specs without the model. Each has one replica, two balancers, and four slots, the number that the
fake balancers report."""


def servers(count: int) -> list[Manifest]:
    """Return `count` servers, distributed over NAMESPACES namespaces."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": f"server-{index:04}", "namespace": namespace(index)},
            "spec": {"model": {"url": _URL}, **MIX[index % len(MIX)]},
        }
        for index in range(count)
    ]


def namespace(index: int) -> str:
    """Return the namespace of the server with this number."""
    return f"bench-{index % NAMESPACES:02}"
