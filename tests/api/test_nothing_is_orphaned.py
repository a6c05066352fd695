"""Servers come and go while operators are killed: nothing is orphaned, nothing is stuck."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apiserver import ApiServer, garbage_collector
from llamaservers import raw_server
from operator_process import (
    NAMESPACE as OWN_NAMESPACE,
)
from operator_process import (
    OperatorProcess,
    as_the_operator,
    create,
    eventually,
    get,
    operator_process,
    rights,
)
from slotkeeper.desired import names
from slotkeeper.kube.kinds import CHILDREN

NAMESPACE = "comings-and-goings"
SERVERS = f"/apis/slotkeeper.dev/v1alpha1/namespaces/{NAMESPACE}/llamaservers"
LIVES = 50
"""Servers that are made, and deleted."""
AT_ONCE = 8
"""Names for them: each is soon that of another one."""
KINDS = ",".join(kind.plural for kind in CHILDREN)


class Operators:
    """One operator after the other."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self._api, self._folder = api, folder
        self._kubeconfig = as_the_operator(api, folder)
        self._running = ExitStack()
        self.killed = -1
        self.replace()

    def replace(self) -> None:
        """Kill the operator, wherever it is, and start the next one."""
        if self.killed >= 0:
            self.current.end(signal.SIGKILL)
        self._running.close()
        # Instead of waiting until it has run out.
        self._api.kubectl("delete", "lease", "slotkeeper-operator", "-n", OWN_NAMESPACE)
        started = operator_process(self._kubeconfig, self._folder / "log")
        self.current: OperatorProcess = self._running.enter_context(started)
        self.killed += 1

    def close(self) -> None:
        """End the last one."""
        self._running.close()


@pytest.fixture
def operators(api: ApiServer, tmp_path: Path) -> Iterator[Operators]:
    create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    create(api, *rights())
    with garbage_collector(api, tmp_path / "kube-controller-manager.log"):
        operators = Operators(api, tmp_path)
        yield operators
        operators.close()


def server(name: str, rng: Random) -> dict[str, Any]:
    spec: dict[str, Any] = {"gpu": {"count": 1}}
    if rng.random() < 0.3:
        spec["workers"] = {"count": 1}
    return raw_server(name, replicas=rng.randint(1, 3), **spec)


def here(api: ApiServer, kinds: str, *selector: str) -> list[Any]:
    found = get(api, kinds, "-n", NAMESPACE, *selector)
    return list(found["items"]) if found else []


def test_nothing_is_orphaned_and_nothing_is_stuck(api: ApiServer, operators: Operators) -> None:
    rng, there = Random(5), set[str]()
    made = 0
    while made < LIVES or there:
        name = f"server-{rng.randrange(AT_ONCE)}"
        if name in there:
            assert api.client.delete(f"{SERVERS}/{name}").status_code == 200
            there.remove(name)
        elif made < LIVES:
            assert api.post(SERVERS, server(name, rng)).status_code == 201
            there.add(name)
            made += 1
        # Wherever the operator is by then, it is interrupted there.
        time.sleep(rng.uniform(0, 0.3))
        if rng.random() < 0.1:
            operators.replace()

    eventually(lambda: not here(api, "llamaservers"))
    eventually(lambda: not here(api, KINDS, "-l", names.SERVER_LABEL), 60)
    assert operators.killed >= 5
    # The last one is none the worse for it.
    assert api.post(SERVERS, server("server-0", rng)).status_code == 201
    eventually(lambda: here(api, "deployments,statefulsets", "-l", names.SERVER_LABEL))
    eventually(lambda: "conditions" in here(api, "llamaservers")[0].get("status", {}))
