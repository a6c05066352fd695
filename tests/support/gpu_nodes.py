"""Nodes with GPUs, and replicas on them."""

from fake_cluster import FakeCluster
from operator_harness import KEY
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import PODS


def add_gpu_node(cluster: FakeCluster, name: str, mib: str, **labels: str) -> None:
    """A node with the labels of GPU feature discovery."""
    found = {
        names.GPU_MAJOR_LABEL: "7",
        names.GPU_MINOR_LABEL: "5",
        "nvidia.com/gpu.memory": mib,
        **labels,
    }
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "namespace": "", "labels": found},
        }
    )


def bind(cluster: FakeCluster) -> None:
    """Give each pod of a replica a node."""

    def bound(pod: Manifest) -> None:
        pod["spec"]["nodeName"] = "a"

    for name, pod in cluster.by_name(PODS).items():
        if pod["metadata"]["labels"]["slotkeeper.dev/component"] == "replica":
            cluster.edit(PODS, KEY.namespace, name, bound)
