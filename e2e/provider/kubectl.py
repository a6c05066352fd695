"""kubectl as a value: what to run, and in which environment."""

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
    """A way to call kubectl on one cluster."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and say how it went."""
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints. Raises ClusterError."""
        done = self.run(*arguments, stdin=stdin)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether it exits with 0."""
        return self.run("--request-timeout=5s", *arguments).returncode == 0

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply a manifest."""
        self.check("apply", "--filename=-", stdin=json.dumps(manifest))

    def heartbeat(self) -> str | None:
        """When the kubelet last told of its node; None before it ever did."""
        path = "{.items[0].status.conditions[?(@.type=='Ready')].lastHeartbeatTime}"
        asked = self.run("--request-timeout=5s", "get", "nodes", "-o", f"jsonpath={path}")
        return asked.stdout.strip() or None

    def play_gpus(self, count: int, compute: str) -> None:
        """Let the node seem to have so many GPUs, labelled as GPU feature discovery labels them."""
        major, _, minor = compute.partition(".")
        values = (str(count), major, minor or "0", "Played")
        labels = dict(zip(LABELS, values if count else (None,) * len(LABELS), strict=True))
        self._patch({"metadata": {"labels": labels}})
        amount = str(count) if count else None
        amounts = {RESOURCE: amount}
        self._patch(
            {"status": {"capacity": amounts, "allocatable": amounts}}, "--subresource=status"
        )

    def restore_gpus(self) -> None:
        """Give the node back the GPUs that its labels tell of: a starting kubelet forgets them."""
        node = json.loads(self.check("get", self._node(), "-o", "json"))
        labels = node["metadata"]["labels"]
        if COUNT in labels:
            compute = f"{labels[LABELS[1]]}.{labels[LABELS[2]]}"
            self.play_gpus(int(labels[COUNT]), compute)

    def _patch(self, patch: Mapping[str, Any], *flags: str) -> None:
        self.check("patch", self._node(), "--type=merge", *flags, f"--patch={json.dumps(patch)}")

    def _node(self) -> str:
        return self.check("get", "nodes", "-o", "name").split()[0]
