"""Watches break silently or with a reset: changes made meanwhile are reconciled nevertheless."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from apiserver import ApiServer
from llamaservers import raw_server
from operator_process import (
    OperatorProcess,
    create,
    eventually,
    get,
    lease_holder,
    operator_kubeconfig,
    operator_process,
    rbac_manifests,
)
from slotkeeper.kube.kinds import CHILDREN
from tcp_proxy import TcpProxy, tcp_proxy

IDLE_TIMEOUT = 3
"""Seconds of --api-idle-timeout; the default is 70."""

CONVERGENCE_TIMEOUT = 4 * IDLE_TIMEOUT
"""The watch, a list and a write may each have to detect a dead connection, one after the other."""

WATCHES = len(CHILDREN) + 3
"""Minimum number of watches: of the children's kinds, pods, servers and the Lease."""

KEPT, DELETED, CHANGED, CREATED = "kept", "deleted", "changed", "created"


@dataclass(frozen=True)
class ProxiedOperator:
    """An operator and its breakable connection to the API server."""

    operator: OperatorProcess
    proxy: TcpProxy


@pytest.fixture(scope="module")
def proxied_operator(
    api: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxiedOperator]:
    folder = tmp_path_factory.mktemp("operator")
    create(api, *rbac_manifests())
    kubeconfig = operator_kubeconfig(api, folder)
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    with tcp_proxy(urlsplit(cluster["server"]).port or 0) as to_api:
        cluster["server"] = f"https://127.0.0.1:{to_api.port}"
        kubeconfig.write_text(yaml.safe_dump(config))
        flags = ("--api-idle-timeout", str(IDLE_TIMEOUT))
        with operator_process(kubeconfig, folder / "log", *flags) as operator:
            eventually(lambda: lease_holder(api))
            yield ProxiedOperator(operator, to_api)


@pytest.fixture
def servers(api: ApiServer, proxied_operator: ProxiedOperator) -> Iterator[None]:
    """Three servers that the operator has reconciled."""
    assert proxied_operator.operator.process.poll() is None, proxied_operator.operator.log_text()
    names = (KEPT, DELETED, CHANGED)
    create(api, *(raw_server(name, gpu={"count": 0}) for name in names))
    for name in names:
        eventually(lambda name=name: is_reconciled(api, name))  # type: ignore[misc]
    yield
    api.kubectl("delete", "llama", "--all")
    # This API server runs without a garbage collector.
    for kind in CHILDREN:
        api.kubectl("delete", kind.plural, "--selector", "slotkeeper.dev/server")


FAILURES = [
    pytest.param(TcpProxy.stall, id="silently"),
    pytest.param(TcpProxy.reset, id="with a reset"),
]


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("fail", FAILURES)
def test_changes_made_while_watches_are_broken_are_reconciled(
    api: ApiServer, proxied_operator: ProxiedOperator, fail: Callable[[TcpProxy], int]
) -> None:
    assert fail(proxied_operator.proxy) >= WATCHES
    create(api, raw_server(CREATED, gpu={"count": 0}))
    for spec in ('{"spec":{"replicas":2}}', '{"spec":{"replicas":3}}'):
        kubectl(api, "patch", "llama", CHANGED, "--type=merge", "-p", spec)
    kubectl(api, "delete", "llama", DELETED)
    kubectl(api, "delete", "service", DELETED, KEPT)
    kubectl(api, "scale", f"deployment/{KEPT}-replicas", "--replicas=7")

    eventually(lambda: desired_replicas(api, CREATED) == 1, seconds=CONVERGENCE_TIMEOUT)
    eventually(lambda: desired_replicas(api, CHANGED) == 3, seconds=5)
    eventually(lambda: desired_replicas(api, KEPT) == 1, seconds=5)
    eventually(lambda: get(api, "service", KEPT), seconds=5)
    eventually(lambda: is_reconciled(api, CREATED), seconds=5)

    assert get(api, "service", DELETED) is None
    assert proxied_operator.operator.process.poll() is None, proxied_operator.operator.log_text()


def is_reconciled(api: ApiServer, name: str) -> bool:
    return "conditions" in get(api, "llama", name).get("status", {})


def desired_replicas(api: ApiServer, name: str) -> Any:
    deployment = get(api, f"deployment/{name}-replicas")
    return deployment and deployment["spec"]["replicas"]


def kubectl(api: ApiServer, *arguments: str) -> None:
    result = api.kubectl(*arguments)
    assert result.returncode == 0, result.stderr
