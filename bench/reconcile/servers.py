"""The LlamaServers of a run: a mix of what users write, the same ones in each run."""

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
"""Specs beside the model: one replica, two balancers, and the four slots that those tell of."""


def servers(count: int) -> list[Manifest]:
    """So many servers, spread over NAMESPACES namespaces."""
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
    """The namespace of the server with this number."""
    return f"bench-{index % NAMESPACES:02}"
