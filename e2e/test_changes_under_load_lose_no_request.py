"""Rollouts and scaling under load: each request is completed, none is sent beyond the slots."""

from collections.abc import Iterator

import pytest

from load import LoadResult, load
from servers import SLOW, Server, Spec, spec

# Two clients more than slots, so that requests are always queued; a request takes about a second.
CLIENTS = 6
TOKENS = 200


@pytest.fixture
def busy(server: Server) -> Iterator[LoadResult]:
    """Two replicas with two slots each, under load from more clients until the test ends.

    Then each request must have been completed, and none deferred by a replica.
    """
    server.ready(spec(SLOW, replicas=2))
    with load(server, clients=CLIENTS, tokens=TOKENS) as outcome:
        server.wait("jsonpath={.status.slots.busy}=4", 30)
        yield outcome
    assert outcome.failed == []
    assert len(outcome.results) > CLIENTS
    assert outcome.deferred == 0
    # Polled all the time, except while there is no replica.
    assert outcome.samples > 20


@pytest.mark.usefixtures("busy")
def test_restarting_the_balancers(server: Server) -> None:
    balancer = f"deployment/{server.name}-balancer"
    before = _leader(server)

    server.kubectl("rollout", "restart", balancer)
    server.kubectl("rollout", "status", balancer, "--timeout=120s")
    # The rollout is complete before the last of the old ones has handed over.
    server.kubectl("wait", "--for=delete", f"pod/{before}", "--timeout=120s")

    assert _leader(server) not in {"", before}


@pytest.mark.usefixtures("busy")
def test_adding_and_removing_replicas(server: Server) -> None:
    for replicas in (3, 1):
        server.kubectl("scale", f"llamaserver/{server.name}", f"--replicas={replicas}")
        server.wait(f"jsonpath={{.status.readyReplicas}}={replicas}", 90)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"contextPerSlot": 2048}, id="arguments"),
        pytest.param({"model": {"url": SLOW, "alias": "other"}}, id="model"),
        pytest.param({"update": {"maxSurge": 0, "maxUnavailable": 1}, "slots": 3}, id="no surge"),
        pytest.param({"update": {"strategy": "Recreate"}, "slots": 1}, id="recreate"),
    ],
)
def test_replacing_the_replicas(server: Server, change: Spec) -> None:
    before = set(server.replica_addresses())

    server.apply({**spec(SLOW, replicas=2), **change})
    server.wait("jsonpath={.status.observedGeneration}=2", 30)
    replicas = f"deployment/{server.name}-replicas"
    server.kubectl("rollout", "status", replicas, "--timeout=180s")

    assert not before & set(server.replica_addresses())


def _leader(server: Server) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return server.kubectl("get", "lease", f"{server.name}-balancer", "-o", path)
