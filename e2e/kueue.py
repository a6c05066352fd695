"""The real Kueue, and a queue with a quota, in a test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from addons import Addon
from stack import Cluster

KUEUE = Addon(
    "kueue",
    namespace="kueue-system",
    manifests="config/default",
    deployments=("kueue-controller-manager",),
    api_services=("v1beta1.visibility.kueue.x-k8s.io", "v1beta2.visibility.kueue.x-k8s.io"),
)
WORKLOADS = "workloads.kueue.x-k8s.io"
DEFAULT = "default"
PRIORITIES = {"batch": -10, "interactive": 10}
"""Values of the WorkloadPriorityClasses."""
_FLAVOR = "e2e"


@dataclass(frozen=True)
class Queue:
    """The LocalQueue `name` in `namespace`, with a ClusterQueue of its own."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def cluster_queue(self) -> str:
        """Name of its ClusterQueue."""
        return f"{self.namespace}-{self.name}"

    def apply(self, quota: Mapping[str, str]) -> None:
        """Create both queues, or set another quota by resource."""
        resources = [{"name": each, "nominalQuota": amount} for each, amount in quota.items()]
        flavor = {"name": _FLAVOR, "resources": resources}
        self.cluster.apply(
            _manifest(
                "ClusterQueue",
                self.cluster_queue,
                namespaceSelector={},
                preemption={"withinClusterQueue": "LowerPriority"},
                resourceGroups=[{"coveredResources": list(quota), "flavors": [flavor]}],
            ),
            _manifest("LocalQueue", self.name, clusterQueue=self.cluster_queue),
            namespace=self.namespace,
        )

    def apply_default(self) -> None:
        """Create the LocalQueue `default` with the same quota. Kueue puts the Deployments and
        StatefulSets of the namespace into it."""
        queue = _manifest("LocalQueue", DEFAULT, clusterQueue=self.cluster_queue)
        self.cluster.apply(queue, namespace=self.namespace)
        active = ("wait", "--for=condition=Active", f"localqueue/{DEFAULT}", "--timeout=30s")
        self.cluster.kubectl("-n", self.namespace, *active)

    def admitted(self) -> int:
        """Return the number of pods that it has admitted."""
        queue = self.cluster.get("localqueue", self.name, namespace=self.namespace)
        number: int = queue["status"]["admittedWorkloads"]
        return number


@contextmanager
def team_queue(cluster: Cluster, namespace: str) -> Iterator[Queue]:
    """Yield a queue that is not yet applied. After the `with`, all LlamaServers of the namespace
    are deleted, because their pods need Kueue to be deleted."""
    classes = [
        {**_manifest("WorkloadPriorityClass", name), "value": value}
        for name, value in PRIORITIES.items()
    ]
    cluster.apply(_manifest("ResourceFlavor", _FLAVOR), *classes)
    queue = Queue(cluster, namespace, "team-a")
    yield queue
    for kind in ("llamaservers", "pods", WORKLOADS, "localqueues"):
        cluster.kubectl("-n", namespace, "delete", kind, "--all", "--timeout=60s")
    names = (f"clusterqueue/{queue.cluster_queue}", f"resourceflavor/{_FLAVOR}")
    cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", *names)


def _manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": kind,
        "metadata": {"name": name},
        **({"spec": spec} if spec else {}),
    }
