"""Watches die without a word, and with a reset: what happened meanwhile is seen all the same."""

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
    as_the_operator,
    create,
    eventually,
    get,
    holder,
    operator_process,
    rights,
)
from slotkeeper.kube.kinds import CHILDREN
from tcp_proxy import TcpProxy, tcp_proxy

SILENCE = 3
"""Seconds that the operator is told to bear; a minute and a bit by default."""

CONVERGED = 4 * SILENCE
"""The watch that shows it, a listing and a write may each have to find that its connection is dead,
one after another."""

WATCHES = len(CHILDREN) + 3
"""Of the children's kinds, and of pods, servers and the Lease."""

STAYS, GOES, CHANGES, COMES = "stays", "goes", "changes", "comes"


@dataclass(frozen=True)
class OnAWire:
    """An operator and its way to the API server."""

    operator: OperatorProcess
    wire: TcpProxy


@pytest.fixture(scope="module")
def on_a_wire(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnAWire]:
    folder = tmp_path_factory.mktemp("operator")
    create(api, *rights())
    kubeconfig = as_the_operator(api, folder)
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    with tcp_proxy(urlsplit(cluster["server"]).port or 0) as to_api:
        cluster["server"] = f"https://127.0.0.1:{to_api.port}"
        kubeconfig.write_text(yaml.safe_dump(config))
        silence = ("--api-idle-timeout", str(SILENCE))
        with operator_process(kubeconfig, folder / "log", *silence) as operator:
            eventually(lambda: holder(api))
            yield OnAWire(operator, to_api)


@pytest.fixture
def servers(api: ApiServer, on_a_wire: OnAWire) -> Iterator[None]:
    """Three servers that the operator has looked after."""
    assert on_a_wire.operator.process.poll() is None, on_a_wire.operator.said()
    names = (STAYS, GOES, CHANGES)
    create(api, *(raw_server(name, gpu={"count": 0}) for name in names))
    for name in names:
        eventually(lambda name=name: has_been_looked_at(api, name))  # type: ignore[misc]
    yield
    api.kubectl("delete", "llama", "--all")
    # There is no garbage collector beside this API server.
    for kind in CHILDREN:
        api.kubectl("delete", kind.plural, "--selector", "slotkeeper.dev/server")


CUTS = [
    pytest.param(TcpProxy.stall, id="without a word"),
    pytest.param(TcpProxy.reset, id="by a reset"),
]


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("cut", CUTS)
def test_what_happens_while_watches_are_dead_is_seen(
    api: ApiServer, on_a_wire: OnAWire, cut: Callable[[TcpProxy], int]
) -> None:
    assert cut(on_a_wire.wire) >= WATCHES
    create(api, raw_server(COMES, gpu={"count": 0}))
    for spec in ('{"spec":{"replicas":2}}', '{"spec":{"replicas":3}}'):
        done(api, "patch", "llama", CHANGES, "--type=merge", "-p", spec)
    done(api, "delete", "llama", GOES)
    done(api, "delete", "service", GOES, STAYS)
    done(api, "scale", f"deployment/{STAYS}-replicas", "--replicas=7")

    eventually(lambda: wanted_replicas(api, COMES) == 1, seconds=CONVERGED)
    eventually(lambda: wanted_replicas(api, CHANGES) == 3, seconds=5)
    eventually(lambda: wanted_replicas(api, STAYS) == 1, seconds=5)
    eventually(lambda: get(api, "service", STAYS), seconds=5)
    eventually(lambda: has_been_looked_at(api, COMES), seconds=5)

    assert get(api, "service", GOES) is None
    assert on_a_wire.operator.process.poll() is None, on_a_wire.operator.said()


def has_been_looked_at(api: ApiServer, name: str) -> bool:
    return "conditions" in get(api, "llama", name).get("status", {})


def wanted_replicas(api: ApiServer, name: str) -> Any:
    deployment = get(api, f"deployment/{name}-replicas")
    return deployment and deployment["spec"]["replicas"]


def done(api: ApiServer, *arguments: str) -> None:
    answer = api.kubectl(*arguments)
    assert answer.returncode == 0, answer.stderr
