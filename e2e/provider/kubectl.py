"""kubectl with a fixed command prefix and environment."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provider.progress import ClusterError

RESOURCE = "nvidia.com/gpu"
COUNT = f"{RESOURCE}.count"
LABELS = (COUNT, f"{RESOURCE}.compute.major", f"{RESOURCE}.compute.minor", f"{RESOURCE}.product")


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return the completed process, whatever its exit status."""
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its standard output. Raises ClusterError if it fails."""
        result = self.run(*arguments, stdin=stdin)
        if result.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether kubectl exits with status 0."""
        return self.run("--request-timeout=5s", *arguments).returncode == 0

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply a manifest."""
        self.check("apply", "--filename=-", stdin=json.dumps(manifest))

    def node_heartbeat(self) -> str | None:
        """Return the time of the kubelet's last status report, None before the first one."""
        path = "{.items[0].status.conditions[?(@.type=='Ready')].lastHeartbeatTime}"
        result = self.run("--request-timeout=5s", "get", "nodes", "-o", f"jsonpath={path}")
        return result.stdout.strip() or None

    def set_fake_gpus(self, count: int, compute: str) -> None:
        """Make the node advertise `count` GPUs, with the labels of GPU feature discovery.

        `compute` is their compute capability, as in 7.5. A count of 0 removes them.
        """
        major, _, minor = compute.partition(".")
        values = (str(count), major, minor or "0", "Fake")
        labels = dict(zip(LABELS, values if count else (None,) * len(LABELS), strict=True))
        self._patch({"metadata": {"labels": labels}})
        quantity = {RESOURCE: str(count) if count else None}
        self._patch(
            {"status": {"capacity": quantity, "allocatable": quantity}}, "--subresource=status"
        )

    def restore_gpus(self) -> None:
        """Advertise the GPUs that the node's labels describe: a starting kubelet drops them."""
        node = json.loads(self.check("get", self._node(), "-o", "json"))
        labels = node["metadata"]["labels"]
        if COUNT in labels:
            compute = f"{labels[LABELS[1]]}.{labels[LABELS[2]]}"
            self.set_fake_gpus(int(labels[COUNT]), compute)

    def _patch(self, patch: Mapping[str, Any], *flags: str) -> None:
        self.check("patch", self._node(), "--type=merge", *flags, f"--patch={json.dumps(patch)}")

    def _node(self) -> str:
        return self.check("get", "nodes", "-o", "name").split()[0]
