"""The operator as its own process, with kopf and the permissions that the chart grants."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from apiserver import ApiServer, free_port

RBAC = Path(__file__).resolve().parents[2] / "charts" / "slotkeeper" / "files" / "rbac"
NAMESPACE = "operator-system"
ACCOUNT = {"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}
_RECONCILES = re.compile(
    r'^slotkeeper_operator_reconcile_total\{result="success"\} (\S+)', re.MULTILINE
)
GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class OperatorProcess:
    """A running operator."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def log_text(self) -> str:
        """Return its whole log."""
        return self.log.read_text()

    def metrics_text(self) -> str:
        """Return its /metrics. Raises httpx.TransportError while they are not served."""
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text

    def reconciles(self) -> int:
        """Return the number of successful reconciles from its metrics, 0 without metrics."""
        try:
            text = self.metrics_text()
        except httpx.TransportError:
            return 0
        match = _RECONCILES.search(text)
        return int(float(match[1])) if match else 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; return the exit status. The process may have exited before."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def operator_process(kubeconfig: Path, log: Path, *arguments: str) -> Iterator[OperatorProcess]:
    """Run the operator inside of the `with`, with the required arguments and these."""
    metrics_port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "operator"),
                *("--llama-server-image", "a", "--balancer-image", "b", "--download-image", "c"),
                "--llama-server-image-for-vendor=nvidia=d",
                *("--health", "127.0.0.1:0", "--metrics", f"127.0.0.1:{metrics_port}"),
                *("--lease-namespace", NAMESPACE, *arguments),
            ],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdout=output,
            stderr=output,
        )
    started = OperatorProcess(process, log, metrics_port)
    try:
        yield started
    finally:
        started.stop()


def rbac_manifests(*, namespace: str = "") -> list[dict[str, Any]]:
    """Return the chart's RBAC objects for an operator of one namespace, or (default) of all."""
    metadata = {"name": "operator"}
    if namespace:
        watched = _role(
            "Role", {**metadata, "namespace": namespace}, "watched.yaml", "pod-logs.yaml"
        )
    else:
        watched = _role("ClusterRole", metadata, "watched.yaml", "pod-logs.yaml", "nodes.yaml")
    own = _role("Role", {"name": "operator-own", "namespace": NAMESPACE}, "own.yaml")
    account = {**metadata, "namespace": NAMESPACE}
    return [
        namespace_of(NAMESPACE),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        *watched,
        *own,
    ]


def _role(kind: str, metadata: dict[str, str], *files: str) -> list[dict[str, Any]]:
    """Return a role with the rules of these files, and its binding to the operator."""
    rules = [rule for file in files for rule in yaml.safe_load((RBAC / file).read_text())]
    common = {"apiVersion": f"{GROUP}/v1", "metadata": metadata}
    ref = {"apiGroup": GROUP, "kind": kind, "name": metadata["name"]}
    return [
        {**common, "kind": kind, "rules": rules},
        {**common, "kind": f"{kind}Binding", "roleRef": ref, "subjects": [ACCOUNT]},
    ]


def namespace_of(name: str) -> dict[str, Any]:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def create(api: ApiServer, *manifests: dict[str, Any]) -> None:
    """Apply the manifests as an administrator."""
    applied = api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    assert applied.returncode == 0, applied.stderr


def operator_kubeconfig(
    api: ApiServer, folder: Path, account: str = ACCOUNT["name"], namespace: str = NAMESPACE
) -> Path:
    """Write a kubeconfig of the operator's ServiceAccount into `folder`; return its path."""
    token = api.kubectl("create", "token", account, "-n", namespace)
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


def eventually(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait until the condition is true. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"condition still false after {seconds:g} s"
        time.sleep(0.05)


def get(api: ApiServer, *arguments: str) -> Any:
    """Return the JSON of `kubectl get`, None if there is no such object."""
    result = api.kubectl("get", *arguments, "--output=json", "--ignore-not-found")
    return json.loads(result.stdout or "null")


def lease_holder(api: ApiServer) -> str:
    """Return the identity of the leading operator, "" if there is none."""
    lease = get(api, "lease", "slotkeeper-operator", f"--namespace={NAMESPACE}")
    return str(lease["spec"].get("holderIdentity", "")) if lease else ""
