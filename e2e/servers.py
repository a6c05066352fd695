"""A LlamaServer in a test: applies it, waits for its status, sends requests."""

from dataclasses import dataclass
from typing import Any

from stack import MODELS_NAMESPACE, Cluster, chat

QUICK = f"http://models.{MODELS_NAMESPACE}.svc/quick.gguf"
"""A model that generates thousands of tokens a second."""

SLOW = f"http://models.{MODELS_NAMESPACE}.svc/tiny.gguf"
"""A model that takes some seconds for a thousand tokens."""

ALL_KINDS = (
    "deployments,statefulsets,jobs,services,serviceaccounts,roles,rolebindings,leases,networkpolicies,"
    "poddisruptionbudgets,pods"
)
"""All kinds that a server's resources may have, in kubectl's syntax."""

Spec = dict[str, Any]


def spec(model: str = QUICK, **fields: Any) -> Spec:
    """Return a spec without GPUs and with two slots; `fields` override it."""
    # One core each: with more threads than cores, threads wait for one another.
    cpu = {"requests": {"cpu": "50m"}, "limits": {"cpu": 1}}
    return {"model": {"url": model}, "slots": 2, "gpu": {"count": 0}, "resources": cpu, **fields}


@dataclass(frozen=True)
class Server:
    """The LlamaServer `name` in `namespace`."""

    cluster: Cluster
    namespace: str
    name: str

    def apply(self, spec: Spec) -> None:
        """Apply the server with this spec."""
        self.cluster.apply(
            {
                "apiVersion": "slotkeeper.dev/v1alpha1",
                "kind": "LlamaServer",
                "metadata": {"name": self.name},
                "spec": spec,
            },
            namespace=self.namespace,
        )

    def ready(self, spec: Spec) -> None:
        """Apply the server and wait until it is Ready."""
        self.apply(spec)
        self.wait("condition=Ready")

    def wait(self, condition: str, seconds: int = 90) -> None:
        """Run `kubectl wait --for=CONDITION`. Raises RuntimeError after `seconds`."""
        server = f"llamaserver/{self.name}"
        self.kubectl("wait", f"--for={condition}", server, f"--timeout={seconds}s")

    def wait_for_reason(self, condition: str, reason: str, seconds: int = 90) -> str:
        """Wait until a condition has this reason; return its message."""
        path = f'{{.status.conditions[?(@.type=="{condition}")].reason}}'
        self.wait(f"jsonpath={path}={reason}", seconds)
        return self.condition(condition)["message"]

    def wait_until_deleted(self) -> None:
        """Wait until all of its resources are deleted."""
        selector = ("-l", f"slotkeeper.dev/server={self.name}")
        self.kubectl("wait", "--for=delete", ALL_KINDS, *selector, "--timeout=60s")

    def wait_until_scaled_to_zero(self) -> None:
        """Wait until all replica pods are deleted."""
        replicas = f"slotkeeper.dev/server={self.name},slotkeeper.dev/component=replica"
        self.kubectl("wait", "--for=delete", "pods", "-l", replicas, "--timeout=90s")

    def condition(self, kind: str) -> dict[str, str]:
        """Return the condition of this type."""
        conditions: list[dict[str, str]] = self.get()["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == kind)

    def get(self) -> dict[str, Any]:
        """Return the whole resource."""
        return self.cluster.get("llamaserver", self.name, namespace=self.namespace)

    def children(self, kinds: str) -> list[dict[str, Any]]:
        """Return the server's resources of these kinds, which are separated by commas."""
        selector = ("-l", f"slotkeeper.dev/server={self.name}")
        listing = self.cluster.get(kinds, *selector, namespace=self.namespace)
        items: list[dict[str, Any]] = listing["items"]
        return items

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Return the pods of a component: replica, worker, balancer or prefetch."""
        return [
            pod
            for pod in self.children("pods")
            if pod["metadata"]["labels"]["slotkeeper.dev/component"] == component
        ]

    def replica_addresses(self) -> list[str]:
        """Return HOST:PORT of each replica whose pod is not being deleted."""
        return [
            f"{pod['status']['podIP']}:8080"
            for pod in self.pods("replica")
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the server's namespace; return its output. Raises RuntimeError."""
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    @property
    def url(self) -> str:
        """URL of the server's Service, by IP address: outside of pods its name does not resolve."""
        service = self.cluster.get("service", self.name, namespace=self.namespace)
        return f"http://{service['spec']['clusterIP']}"

    def chat(self, *, requests: int = 1, tokens: int = 16) -> list[dict[str, Any]]:
        """Send streamed chat completions at once; return each one's result (see e2e/chat.py)."""
        size = ("--requests", str(requests), "--tokens", str(tokens))
        return chat(self.cluster, self.url, "--stream", *size)
