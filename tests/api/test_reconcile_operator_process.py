"""The operator as it is run: its process, with kopf, and with the rights that the chart gives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from llamaservers import raw_server

RBAC = Path(__file__).resolve().parents[2] / "charts" / "slotkeeper" / "files" / "rbac"
NAMESPACE = "operator-system"
ACCOUNT = {"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}


@dataclass(frozen=True)
class Running:
    """The operator's process."""

    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module")
def running(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("operator")
    create(api, *rights())
    kubeconfig = as_the_operator(api, folder)
    operator = start(kubeconfig, folder / "log")
    try:
        eventually(lambda: holder(api))
        yield operator
    finally:
        operator.process.terminate()
        operator.process.wait(timeout=20)


def start(kubeconfig: Path, log: Path) -> Running:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "operator"),
                *("--llama-server-image", "a", "--balancer-image", "b", "--model-image", "c"),
                *("--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
                *("--lease-namespace", NAMESPACE),
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
    applied = api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    assert applied.returncode == 0, applied.stderr


def as_the_operator(api: ApiServer, folder: Path) -> Path:
    token = api.kubectl("create", "token", "operator", "-n", NAMESPACE)
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(api.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


def eventually(true: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def get(api: ApiServer, *arguments: str) -> Any:
    answer = api.kubectl("get", *arguments, "--output=json", "--ignore-not-found")
    return json.loads(answer.stdout or "null")


def holder(api: ApiServer) -> str:
    lease = get(api, "lease", "slotkeeper-operator", f"--namespace={NAMESPACE}")
    return str(lease["spec"]["holderIdentity"]) if lease else ""


@pytest.fixture
def server(api: ApiServer, running: Running) -> Iterator[str]:
    """A server that the operator has looked after."""
    assert running.process.poll() is None, running.log.read_text()
    name = "watched"
    create(api, raw_server(name, gpu={"count": 0}))
    eventually(lambda: "conditions" in get(api, "llama", name).get("status", {}))
    yield name
    api.kubectl("delete", "llama", name)
    # There is no garbage collector beside this API server.
    kinds = "deployments,services,serviceaccounts,roles,rolebindings"
    api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/server={name}")


def test_the_charts_rights_suffice(running: Running, server: str) -> None:
    log = running.log.read_text()

    assert "orbidden" not in log, log
    assert server not in log or "level=ERROR" not in log


def test_what_somebody_deletes_comes_back_within_seconds(api: ApiServer, server: str) -> None:
    uid = get(api, "service", server)["metadata"]["uid"]

    api.kubectl("delete", "service", server)

    eventually(lambda: get(api, "service", server), seconds=5)
    assert get(api, "service", server)["metadata"]["uid"] != uid


def test_what_somebody_scales_is_put_right_within_seconds(api: ApiServer, server: str) -> None:
    deployment = f"deployment/{server}-replicas"

    api.kubectl("scale", deployment, "--replicas=3")

    eventually(lambda: get(api, deployment)["spec"]["replicas"] == 1, seconds=5)


def test_kopf_leaves_nothing_on_a_users_resource(api: ApiServer, server: str) -> None:
    metadata = get(api, "llama", server)["metadata"]

    assert "finalizers" not in metadata
    assert not [key for key in metadata.get("annotations", {}) if "kopf" in key]


@pytest.mark.usefixtures("running")
def test_an_operator_that_waits_for_its_turn_ends_when_it_is_told_to(
    api: ApiServer, tmp_path: Path
) -> None:
    leader = holder(api)
    standby = start(as_the_operator(api, tmp_path), tmp_path / "log")
    eventually(lambda: "waiting for lease" in standby.log.read_text())

    standby.process.terminate()

    assert standby.process.wait(timeout=5) == 0, standby.log.read_text()
    assert holder(api) == leader


def test_an_operator_that_is_told_to_end_gives_the_lease_back(
    api: ApiServer, running: Running
) -> None:
    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(timeout=20) == 0, running.log.read_text()
    assert holder(api) == ""
