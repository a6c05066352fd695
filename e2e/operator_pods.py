"""The operator's own pods in a test: how many there are, and which of them works."""

from collections.abc import Iterator
from contextlib import contextmanager

from stack import SYSTEM_NAMESPACE, Cluster

_HERE = ("-n", SYSTEM_NAMESPACE)
_DEPLOYMENT = "deployment/slotkeeper"
_PODS = ("-l", "app.kubernetes.io/name=slotkeeper")


def scale_operator(cluster: Cluster, replicas: int) -> None:
    """Have so many operator pods, and wait until that is so."""
    cluster.kubectl(*_HERE, "scale", _DEPLOYMENT, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl(*_HERE, "rollout", "status", _DEPLOYMENT, "--timeout=60s")
    else:
        cluster.kubectl(*_HERE, "wait", "--for=delete", "pod", *_PODS, "--timeout=60s")


@contextmanager
def operators(cluster: Cluster, replicas: int) -> Iterator[None]:
    """So many operator pods inside of the `with`; one again after it, whatever happened."""
    try:
        scale_operator(cluster, replicas)
        yield
    finally:
        scale_operator(cluster, 1)


def leader(cluster: Cluster) -> str:
    """Name of the operator pod that holds the Lease; empty while none does."""
    path = "jsonpath={.spec.holderIdentity}"
    # A pod's name and the number of its process.
    holder = cluster.kubectl(*_HERE, "get", "lease", "slotkeeper-operator", "-o", path)
    return holder.rpartition("_")[0]


def kill(cluster: Cluster, pod: str) -> None:
    """End an operator pod's process at once: it can give nothing back."""
    cluster.kubectl(*_HERE, "delete", "pod", pod, "--grace-period=0", "--force")
