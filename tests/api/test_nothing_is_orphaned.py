"""Servers are created and deleted while operators are killed: nothing is orphaned or stuck."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apiserver import ApiServer, garbage_collector
from llamagateways import raw_gateway
from llamaservers import raw_server
from operator_process import (
    NAMESPACE as OWN_NAMESPACE,
)
from operator_process import (
    OperatorProcess,
    create,
    eventually,
    get,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN

NAMESPACE = "orphans"
SERVERS = f"/apis/slotkeeper.dev/v1alpha1/namespaces/{NAMESPACE}/llamaservers"
GATEWAYS = f"/apis/slotkeeper.dev/v1alpha1/namespaces/{NAMESPACE}/llamagateways"
SERVER_COUNT = 50
"""Number of servers that are created and deleted."""
NAME_COUNT = 8
"""Number of names for them, so that names are soon reused."""
KINDS = ",".join(kind.plural for kind in CHILDREN)


class Operators:
    """A sequence of operator processes, one at a time."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self._api, self._folder = api, folder
        self._kubeconfig = operator_kubeconfig(api, folder)
        self._running = ExitStack()
        self.killed = -1
        self.replace()

    def replace(self) -> None:
        """Kill the operator at whatever point it has reached, and start the next one."""
        if self.killed >= 0:
            self.current.stop(signal.SIGKILL)
        self._running.close()
        # Instead of waiting until it expires.
        self._api.kubectl("delete", "lease", "slotkeeper-operator", "-n", OWN_NAMESPACE)
        started = operator_process(self._kubeconfig, self._folder / "log")
        self.current: OperatorProcess = self._running.enter_context(started)
        self.killed += 1

    def close(self) -> None:
        """Stop the last operator."""
        self._running.close()


@pytest.fixture
def operators(api: ApiServer, tmp_path: Path) -> Iterator[Operators]:
    create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    create(api, claim("prompts"), *rbac_manifests())
    with garbage_collector(api, tmp_path / "kube-controller-manager.log"):
        operators = Operators(api, tmp_path)
        yield operators
        operators.close()


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def server(name: str, rng: Random) -> dict[str, Any]:
    spec: dict[str, Any] = {"gpu": {"count": 1}}
    if rng.random() < 0.3:
        spec["workers"] = {"count": 1}
    elif rng.random() < 0.4:
        spec["promptCache"] = {"claimName": "prompts"}
    if rng.random() < 0.3:
        spec["autoscaling"] = {"minReplicas": 0, "maxReplicas": 3}
        spec["model"] = {"url": "https://example.com/a.gguf", "cache": {"claimName": "models"}}
    return raw_server(name, replicas=rng.randint(1, 3), **spec)


def listed(api: ApiServer, kinds: str, *selector: str) -> list[Any]:
    listing = get(api, kinds, "-n", NAMESPACE, *selector)
    return list(listing["items"]) if listing else []


def left(api: ApiServer) -> list[Any]:
    """What is left of servers, without the Jobs that remove prompts: these end by themselves."""
    children = listed(api, KINDS, "-l", names.SERVER_LABEL)
    return [each for each in children if each.get("spec", {}).get("suspend") is not False]


def test_a_deleted_gateway_leaves_nothing(api: ApiServer, operators: Operators) -> None:
    selector = ("-l", names.GATEWAY_LABEL)
    for number in range(3):
        gateway = raw_gateway(f"gateway-{number}")
        assert api.post(GATEWAYS, gateway).status_code == 201
        if number == 1:
            operators.replace()
    eventually(lambda: len(listed(api, "deployments", *selector)) == 3, 30)

    for number in range(3):
        assert api.client.delete(f"{GATEWAYS}/gateway-{number}").status_code == 200

    eventually(lambda: not listed(api, "llamagateways"))
    eventually(lambda: not listed(api, KINDS, *selector), 60)


def test_nothing_is_orphaned_and_nothing_is_stuck(api: ApiServer, operators: Operators) -> None:
    rng, existing = Random(5), set[str]()
    created = 0
    while created < SERVER_COUNT or existing:
        name = f"server-{rng.randrange(NAME_COUNT)}"
        if name in existing:
            assert api.client.delete(f"{SERVERS}/{name}").status_code == 200
            existing.remove(name)
        elif created < SERVER_COUNT:
            assert api.post(SERVERS, server(name, rng)).status_code == 201
            existing.add(name)
            created += 1
        # So that the operator is killed at a random point.
        time.sleep(rng.uniform(0, 0.3))
        if rng.random() < 0.1:
            operators.replace()

    eventually(lambda: not listed(api, "llamaservers"))
    eventually(lambda: not left(api), 60)
    resumed = listed(api, "jobs", "-l", names.PROMPT_FOLDER_LABEL)
    assert len({job["metadata"]["labels"][names.PROMPT_FOLDER_LABEL] for job in resumed}) >= 5
    assert operators.killed >= 5
    # The last operator still works.
    assert api.post(SERVERS, server("server-0", rng)).status_code == 201
    eventually(lambda: listed(api, "deployments,statefulsets", "-l", names.SERVER_LABEL))
    eventually(lambda: "conditions" in listed(api, "llamaservers")[0].get("status", {}))
