"""The operator's own process, with the rights that the chart gives, on a real API server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apiserver import ApiServer

RBAC = Path(__file__).resolve().parents[2] / "charts" / "slotkeeper" / "files" / "rbac"
NAMESPACE = "operator-system"
ACCOUNT = {"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}


@dataclass(frozen=True)
class Running:
    """The operator's process."""

    process: subprocess.Popen[bytes]
    log: Path


def start(kubeconfig: Path, log: Path, *flags: str) -> Running:
    """Start it with these flags beside those that it needs; it is the caller's to end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "operator"),
                *("--llama-server-image", "a", "--balancer-image", "b", "--model-image", "c"),
                *("--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
                *("--lease-namespace", NAMESPACE),
                *flags,
            ],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdout=output,
            stderr=output,
        )
    return Running(process, log)


def rights() -> list[dict[str, Any]]:
    """What the chart creates for a cluster-wide operator, from the chart's own files."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "operator"}
    own = {**metadata, "namespace": NAMESPACE}
    version = f"{group}/v1"

    def binding(kind: str, to: str, where: dict[str, str]) -> dict[str, Any]:
        ref = {"apiGroup": group, "kind": to, "name": "operator"}
        named = {"apiVersion": version, "kind": kind, "metadata": where}
        return {**named, "roleRef": ref, "subjects": [ACCOUNT]}

    def role(kind: str, file: str, where: dict[str, str]) -> dict[str, Any]:
        rules = yaml.safe_load((RBAC / file).read_text())
        return {"apiVersion": version, "kind": kind, "metadata": where, "rules": rules}

    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own},
        role("ClusterRole", "watched.yaml", metadata),
        binding("ClusterRoleBinding", "ClusterRole", metadata),
        role("Role", "own.yaml", own),
        binding("RoleBinding", "Role", own),
    ]


def create(api: ApiServer, *manifests: dict[str, Any]) -> None:
    """Apply these as a user does."""
    applied = api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    assert applied.returncode == 0, applied.stderr


def as_the_operator(api: ApiServer, folder: Path) -> Path:
    """A kubeconfig with the operator's own token."""
    token = api.kubectl("create", "token", "operator", "-n", NAMESPACE)
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


def eventually(true: Callable[[], object], seconds: float = 15) -> None:
    """Wait until it is so; a failure after that many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def get(api: ApiServer, *arguments: str) -> Any:
    """What kubectl gets; None where there is nothing."""
    answer = api.kubectl("get", *arguments, "--output=json", "--ignore-not-found")
    return json.loads(answer.stdout or "null")


def holder(api: ApiServer) -> str:
    """Who holds the operator's Lease."""
    lease = get(api, "lease", "slotkeeper-operator", f"--namespace={NAMESPACE}")
    return str(lease["spec"]["holderIdentity"]) if lease else ""
