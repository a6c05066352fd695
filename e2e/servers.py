"""One LlamaServer of a test: applied, waited for, talked to."""

from dataclasses import dataclass
from typing import Any

from stack import MODELS_NAMESPACE, Cluster, chat

QUICK = f"http://models.{MODELS_NAMESPACE}.svc/quick.gguf"
"""A model that answers at once."""

SLOW = f"http://models.{MODELS_NAMESPACE}.svc/tiny.gguf"
"""A model with which a thousand tokens last some seconds."""

ALL_KINDS = (
    "deployments,statefulsets,services,serviceaccounts,roles,rolebindings,leases,networkpolicies,"
    "poddisruptionbudgets,pods"
)
"""What a server may leave behind, as kubectl takes kinds."""

Spec = dict[str, Any]


def spec(model: str = QUICK, **fields: Any) -> Spec:
    """A server's spec for the CPU, with two slots where `fields` do not say otherwise."""
    # One core each: more threads than cores spend their time waiting for one another.
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

    def wait(self, wanted: str, seconds: int = 90) -> None:
        """Wait as `kubectl wait --for=WANTED` does. Raises RuntimeError when it takes longer."""
        self.kubectl("wait", f"--for={wanted}", f"llamaserver/{self.name}", f"--timeout={seconds}s")

    def wait_for_reason(self, condition: str, reason: str, seconds: int = 90) -> str:
        """Wait until a condition has this reason; its message."""
        path = f'{{.status.conditions[?(@.type=="{condition}")].reason}}'
        self.wait(f"jsonpath={path}={reason}", seconds)
        return self.condition(condition)["message"]

    def wait_until_gone(self) -> None:
        """Wait until no child is left."""
        selector = ("-l", f"slotkeeper.dev/server={self.name}")
        self.kubectl("wait", "--for=delete", ALL_KINDS, *selector, "--timeout=60s")

    def wait_until_asleep(self) -> None:
        """Wait until it has no replica any more."""
        replicas = f"slotkeeper.dev/server={self.name},slotkeeper.dev/component=replica"
        self.kubectl("wait", "--for=delete", "pods", "-l", replicas, "--timeout=90s")

    def condition(self, kind: str) -> dict[str, str]:
        """The condition of this type."""
        conditions: list[dict[str, str]] = self.get()["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == kind)

    def get(self) -> dict[str, Any]:
        """The whole resource."""
        return self.cluster.get("llamaserver", self.name, namespace=self.namespace)

    def children(self, kinds: str) -> list[dict[str, Any]]:
        """The server's children of these kinds, separated by commas as for kubectl."""
        selector = ("-l", f"slotkeeper.dev/server={self.name}")
        found = self.cluster.get(kinds, *selector, namespace=self.namespace)
        items: list[dict[str, Any]] = found["items"]
        return items

    def replica_addresses(self) -> list[str]:
        """HOST:PORT of each replica that is there and stays."""
        pods = self.children("pods")
        return [
            f"{pod['status']['podIP']}:8080"
            for pod in pods
            if pod["metadata"]["labels"]["slotkeeper.dev/component"] == "replica"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints in the server's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    @property
    def url(self) -> str:
        """The address that clients use, as an IP: names are for pods."""
        service = self.cluster.get("service", self.name, namespace=self.namespace)
        return f"http://{service['spec']['clusterIP']}"

    def chat(self, *, requests: int = 1, tokens: int = 16) -> list[dict[str, Any]]:
        """Send streamed chat completions at the same time; how each of them ended."""
        size = ("--requests", str(requests), "--tokens", str(tokens))
        return chat(self.cluster, self.url, "--stream", *size)
