"""Where all is as it should be the operator writes nothing: at rest, and in its next life."""

import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer
from bench.reconcile import audit_log
from llamaservers import raw_server
from operator_process import (
    NAMESPACE,
    OperatorProcess,
    as_the_operator,
    create,
    eventually,
    get,
    operator_process,
    rights,
)
from slotkeeper.kube.kinds import CHILDREN

SERVERS: dict[str, dict[str, Any]] = {
    "rest-cpu": {"gpu": {"count": 0}},
    "rest-gpu": {"gpu": {"count": 1}, "replicas": 2, "podTemplate": {"labels": {"team": "a"}}},
    "rest-group": {"gpu": {"count": 1}, "workers": {"count": 2}},
    "rest-scaled": {"autoscaling": {"minReplicas": 0, "maxReplicas": 3}},
    "rest-suspended": {"suspend": True},
    "rest-keys": {
        "balancer": {"apiKeys": {"secretName": "keys"}},
        "model": {
            "url": "https://example.com/private.gguf",
            "tokenSecretRef": {"name": "token", "key": "token"},
        },
    },
}


NAMES = list(SERVERS)


@pytest.fixture(scope="module")
def kubeconfig(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The operator's own, once an operator has made the servers as they should be, and is gone."""
    create(api, *rights())
    folder = tmp_path_factory.mktemp("operator")
    kubeconfig = as_the_operator(api, folder)
    with operator_process(kubeconfig, folder / "log") as operator:
        create(api, *(raw_server(name, **spec) for name, spec in SERVERS.items()))
        eventually(lambda: all(map(is_looked_after, get(api, "llama", *NAMES)["items"])), 30)
        assert operator.end() == 0, operator.said()
    yield kubeconfig
    api.kubectl("delete", "llama", *NAMES)
    # There is no garbage collector beside this API server.
    kinds = ",".join(kind.plural for kind in CHILDREN)
    for name in NAMES:
        api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/server={name}")


def is_looked_after(server: Any) -> bool:
    return "conditions" in server.get("status", {})


@pytest.fixture
def began() -> datetime:
    return datetime.now(UTC)


def written(api: ApiServer, since: datetime) -> Counter[str]:
    """The operator's writes since then, its Lease's renewal aside."""
    return audit_log.writes(audit_log.requests(api.audit_log, since))


def looked_at_all(operator: OperatorProcess, times: int = 1) -> None:
    eventually(lambda: operator.reconciles() >= times * len(SERVERS), 30)


def test_an_operator_that_starts_finds_nothing_to_write(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        looked_at_all(operator)

    assert written(api, began) == {}


def test_nor_does_one_whose_predecessor_was_killed(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as killed:
        looked_at_all(killed)
        killed.end(signal.SIGKILL)
    # Instead of waiting until it has run out.
    api.kubectl("delete", "lease", "slotkeeper-operator", "-n", NAMESPACE)
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        looked_at_all(operator)

    assert written(api, began) == {}


def test_looking_again_writes_nothing(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        looked_at_all(operator)
        for look in range(2, 5):
            # Whatever changes on a server has it looked at.
            api.kubectl("annotate", "--overwrite", "llama", *NAMES, f"look={look}")
            looked_at_all(operator, look)

    assert written(api, began) == {}


def test_what_is_read_at_rest_is_little(api: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        looked_at_all(operator)
        rests = datetime.now(UTC)
        api.kubectl("annotate", "--overwrite", "llama", *NAMES, "look=last")
        looked_at_all(operator, 2)

    read = Counter(
        f"{request.verb} {request.resource}"
        for request in audit_log.requests(api.audit_log, rests)
        if request.is_operators and not request.is_write and request.verb != "watch"
    )
    # A look at a server reads what the watches have shown, and nothing else.
    assert read.keys() <= {"get leases"}
