"""The operator's pods in a test: their number, and which pod is the leader."""

from collections.abc import Iterator
from contextlib import contextmanager

from stack import SYSTEM_NAMESPACE, Cluster

_NAMESPACE = ("-n", SYSTEM_NAMESPACE)
_DEPLOYMENT = "deployment/slotkeeper"
_PODS = ("-l", "app.kubernetes.io/name=slotkeeper")


def scale_operator(cluster: Cluster, replicas: int) -> None:
    """Scale the operator and wait until it has this number of pods."""
    cluster.kubectl(*_NAMESPACE, "scale", _DEPLOYMENT, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl(*_NAMESPACE, "rollout", "status", _DEPLOYMENT, "--timeout=60s")
    else:
        cluster.kubectl(*_NAMESPACE, "wait", "--for=delete", "pod", *_PODS, "--timeout=60s")


@contextmanager
def operators(cluster: Cluster, replicas: int) -> Iterator[None]:
    """Run `replicas` operator pods inside of the `with`, and one pod again after it."""
    try:
        scale_operator(cluster, replicas)
        yield
    finally:
        scale_operator(cluster, 1)


def leader(cluster: Cluster) -> str:
    """Return the name of the operator pod that holds the Lease, "" if no pod does."""
    path = "jsonpath={.spec.holderIdentity}"
    # The identity is the pod's name and its process id.
    holder = cluster.kubectl(*_NAMESPACE, "get", "lease", "slotkeeper-operator", "-o", path)
    return holder.rpartition("_")[0]


def kill(cluster: Cluster, pod: str) -> None:
    """Kill an operator pod without a grace period, so that it cannot release its Lease."""
    cluster.kubectl(*_NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
