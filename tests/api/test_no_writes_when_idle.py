"""Without drift the operator writes nothing, neither when idle nor after a restart."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer
from bench.reconcile import audit_log
from llamagateways import raw_gateway
from llamaservers import raw_server
from operator_process import (
    NAMESPACE,
    OperatorProcess,
    create,
    eventually,
    get,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)
from slotkeeper.kube.kinds import CHILDREN

SERVERS: dict[str, dict[str, Any]] = {
    "idle-cpu": {"gpu": {"count": 0}},
    "idle-gpu": {"gpu": {"count": 1}, "replicas": 2, "podTemplate": {"labels": {"team": "a"}}},
    "idle-memory": {"gpu": {"memory": "15Gi"}},
    "idle-auto": {"gpu": {"memory": "15Gi", "layers": "auto"}, "contextPerSlot": "auto"},
    "idle-group": {"gpu": {"count": 1}, "workers": {"count": 2}},
    "idle-scaled": {"autoscaling": {"minReplicas": 0, "maxReplicas": 3}},
    "idle-prefetch": {
        "autoscaling": {"minReplicas": 0, "maxReplicas": 3},
        "model": {"url": "https://example.com/a.gguf", "cache": {"claimName": "models"}},
    },
    "idle-suspended": {"suspend": True},
    "idle-prompts": {"promptCache": {"claimName": "prompts"}},
    "idle-keys": {
        "balancer": {"apiKeys": {"secretName": "keys"}},
        "model": {
            "url": "https://example.com/private.gguf",
            "tokenSecretRef": {"name": "token", "key": "token"},
        },
    },
}


GATEWAYS: dict[str, dict[str, Any]] = {
    "idle-gateway": {"aliases": {"gpt": "idle-cpu"}, "maxBodyBytes": "65536Ki"},
    "idle-edge": {
        "serverSelector": {"matchLabels": {"team": "a"}},
        "tls": {"secretName": "cert"},
        "apiKeys": {"secretRef": {"name": "keys"}},
        "service": {"type": "LoadBalancer", "annotations": {"example.com/scheme": "internal"}},
        "resources": {"requests": {"cpu": "1000m"}, "limits": {"memory": "1.5Gi"}},
    },
}

NAMES = list(SERVERS)


@pytest.fixture(scope="module")
def kubeconfig(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The operator's kubeconfig, after an operator has reconciled all servers and exited."""
    create(api, *rbac_manifests())
    folder = tmp_path_factory.mktemp("operator")
    kubeconfig = operator_kubeconfig(api, folder)
    with operator_process(kubeconfig, folder / "log") as operator:
        create(api, *(raw_server(name, **spec) for name, spec in SERVERS.items()))
        create(api, *(raw_gateway(name, **spec) for name, spec in GATEWAYS.items()))
        eventually(lambda: all(map(has_conditions, get(api, "llama", *NAMES)["items"])), 30)
        eventually(lambda: all(map(has_conditions, get(api, "llamagw", *GATEWAYS)["items"])), 30)
        # Until their models are reported, too.
        eventually(lambda: operator_is_idle(api), 30)
        assert operator.stop() == 0, operator.log_text()
    yield kubeconfig
    api.kubectl("delete", "llama", *NAMES)
    api.kubectl("delete", "llamagw", *GATEWAYS)
    # This API server runs without a garbage collector.
    kinds = ",".join(kind.plural for kind in CHILDREN)
    for name in NAMES:
        api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/server={name}")
    for name in GATEWAYS:
        api.kubectl("delete", kinds, "--selector", f"slotkeeper.dev/gateway={name}")


def operator_is_idle(api: ApiServer) -> bool:
    """Whether the operator has written nothing for a second."""
    since = datetime.now(UTC)
    time.sleep(1)
    return not writes(api, since)


def has_conditions(server: Any) -> bool:
    return "conditions" in server.get("status", {})


@pytest.fixture
def began() -> datetime:
    return datetime.now(UTC)


def writes(api: ApiServer, since: datetime) -> Counter[str]:
    """Count the operator's writes since then, without renewals of its Lease."""
    return audit_log.writes(audit_log.requests(api.audit_log, since))


def wait_for_reconciles(operator: OperatorProcess, times: int = 1) -> None:
    """Wait until the operator has reconciled every server and gateway this many times."""
    eventually(lambda: operator.reconciles() >= times * len({**SERVERS, **GATEWAYS}), 30)


def test_a_starting_operator_writes_nothing(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        wait_for_reconciles(operator)

    assert writes(api, began) == {}


def test_an_operator_writes_nothing_after_the_previous_one_was_killed(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as killed:
        wait_for_reconciles(killed)
        killed.stop(signal.SIGKILL)
    # Instead of waiting until it expires.
    api.kubectl("delete", "lease", "slotkeeper-operator", "-n", NAMESPACE)
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        wait_for_reconciles(operator)

    assert writes(api, began) == {}


def test_further_reconciles_write_nothing(
    api: ApiServer, kubeconfig: Path, began: datetime, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        wait_for_reconciles(operator)
        for times in range(2, 5):
            # Every change of a server causes a reconcile.
            api.kubectl("annotate", "--overwrite", "llama", *NAMES, f"reconcile={times}")
            api.kubectl("annotate", "--overwrite", "llamagw", *GATEWAYS, f"reconcile={times}")
            wait_for_reconciles(operator, times)

    assert writes(api, began) == {}


def test_reconciles_read_only_from_the_watches(
    api: ApiServer, kubeconfig: Path, tmp_path: Path
) -> None:
    with operator_process(kubeconfig, tmp_path / "log") as operator:
        wait_for_reconciles(operator)
        idle = datetime.now(UTC)
        api.kubectl("annotate", "--overwrite", "llama", *NAMES, "reconcile=last")
        api.kubectl("annotate", "--overwrite", "llamagw", *GATEWAYS, "reconcile=last")
        wait_for_reconciles(operator, 2)

    reads = Counter(
        f"{request.verb} {request.resource}"
        for request in audit_log.requests(api.audit_log, idle)
        if request.is_operators and not request.is_write and request.verb != "watch"
    )
    # A reconcile reads from the watches' cache. The Lease is read for leader election.
    assert reads.keys() <= {"get leases"}
