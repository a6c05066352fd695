"""Whatever is rolled, added or taken away: every request is answered, and none beyond the slots."""

from collections.abc import Iterator

import pytest

from load import Load, load
from servers import SLOW, Server, Spec, spec

# Two clients more than slots, so that some always wait; answers of about a second.
CLIENTS = 6
TOKENS = 200


@pytest.fixture
def busy(server: Server) -> Iterator[Load]:
    """Two replicas with two slots each, and more clients than that until the test is over.

    Then each request must have been answered, and none seen beyond a replica's slots.
    """
    server.ready(spec(SLOW, replicas=2))
    with load(server, clients=CLIENTS, tokens=TOKENS) as found:
        server.wait("jsonpath={.status.slots.busy}=4", 30)
        yield found
    assert found.failed == []
    assert len(found.endings) > CLIENTS
    assert found.deferred == 0
    # All along, though there may be a while without a replica to look at.
    assert found.looks > 50


@pytest.mark.usefixtures("busy")
def test_restarting_the_balancers(server: Server) -> None:
    balancer = f"deployment/{server.name}-balancer"
    before = _leader(server)

    server.kubectl("rollout", "restart", balancer)
    server.kubectl("rollout", "status", balancer, "--timeout=120s")

    assert _leader(server) not in {"", before}


@pytest.mark.usefixtures("busy")
def test_adding_a_replica_and_taking_one_away(server: Server) -> None:
    for replicas in (3, 1):
        server.kubectl("scale", f"llamaserver/{server.name}", f"--replicas={replicas}")
        server.wait(f"jsonpath={{.status.readyReplicas}}={replicas}", 90)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"contextPerSlot": 2048}, id="its arguments"),
        pytest.param({"model": {"url": SLOW, "alias": "other"}}, id="its model"),
        pytest.param({"update": {"maxSurge": 0, "maxUnavailable": 1}, "slots": 3}, id="no surge"),
        pytest.param({"update": {"strategy": "Recreate"}, "slots": 1}, id="all at once"),
    ],
)
def test_replacing_the_replicas_changes(server: Server, change: Spec) -> None:
    before = set(server.replica_addresses())

    server.apply({**spec(SLOW, replicas=2), **change})
    server.wait("jsonpath={.status.observedGeneration}=2", 30)
    replicas = f"deployment/{server.name}-replicas"
    server.kubectl("rollout", "status", replicas, "--timeout=180s")

    assert not before & set(server.replica_addresses())


def _leader(server: Server) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return server.kubectl("get", "lease", f"{server.name}-balancer", "-o", path)
