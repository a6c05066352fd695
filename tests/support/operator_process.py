"""The operator as it is run: its process, with kopf, and with the rights that the chart gives."""

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
    """One life of the operator."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_text()

    def reconciles(self) -> int:
        """How many reconciles it has done, as its metrics say; 0 while they cannot be read."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return 0
        found = _RECONCILES.search(text)
        return int(float(found[1])) if found else 0

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, or kill it; its exit status. It may have ended already."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def operator_process(kubeconfig: Path, log: Path, *arguments: str) -> Iterator[OperatorProcess]:
    """Start the operator with these arguments beside those that it must have; end it."""
    metrics_port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "operator"),
                *("--llama-server-image", "a", "--balancer-image", "b", "--download-image", "c"),
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
        started.end()


def rights(*, namespace: str = "") -> list[dict[str, Any]]:
    """What the chart creates for an operator of all namespaces, or of one, from its own files."""
    metadata = {"name": "operator"}
    if namespace:
        watched = _granted("Role", {**metadata, "namespace": namespace}, "watched.yaml")
    else:
        watched = _granted("ClusterRole", metadata, "watched.yaml", "nodes.yaml")
    own = _granted("Role", {"name": "operator-own", "namespace": NAMESPACE}, "own.yaml")
    account = {**metadata, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        *watched,
        *own,
    ]


def _granted(kind: str, metadata: dict[str, str], *files: str) -> list[dict[str, Any]]:
    rules = [rule for file in files for rule in yaml.safe_load((RBAC / file).read_text())]
    about = {"apiVersion": f"{GROUP}/v1", "metadata": metadata}
    ref = {"apiGroup": GROUP, "kind": kind, "name": metadata["name"]}
    return [
        {**about, "kind": kind, "rules": rules},
        {**about, "kind": f"{kind}Binding", "roleRef": ref, "subjects": [ACCOUNT]},
    ]


def create(api: ApiServer, *manifests: dict[str, Any]) -> None:
    """Apply these as an administrator."""
    applied = api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    assert applied.returncode == 0, applied.stderr


def as_the_operator(api: ApiServer, folder: Path) -> Path:
    """A kubeconfig of the operator's service account, in this folder."""
    token = api.kubectl("create", "token", "operator", "-n", NAMESPACE)
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


def eventually(true: Callable[[], object], seconds: float = 15) -> None:
    """Wait until it is true. Raises AssertionError when it takes longer."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def get(api: ApiServer, *arguments: str) -> Any:
    """What `kubectl get` finds, as JSON; None where there is no such object."""
    answer = api.kubectl("get", *arguments, "--output=json", "--ignore-not-found")
    return json.loads(answer.stdout or "null")


def holder(api: ApiServer) -> str:
    """Which operator works; empty where none does."""
    lease = get(api, "lease", "slotkeeper-operator", f"--namespace={NAMESPACE}")
    return str(lease["spec"].get("holderIdentity", "")) if lease else ""
