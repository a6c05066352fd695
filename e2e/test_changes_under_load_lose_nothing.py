"""Whatever is rolled, added or taken away: every request is answered, and none beyond the slots."""

from collections.abc import Iterator

import pytest

from load import Load, load
from servers import SLOW, Server, spec

# Two clients more than slots, so that some always wait; answers of about a second.
CLIENTS, TOKENS = 6, 200


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
    assert found.looks > 100


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
def test_replacing_the_replicas(server: Server) -> None:
    server.apply(spec(SLOW, replicas=2, contextPerSlot=2048))
    replicas = f"deployment/{server.name}-replicas"
    server.wait("jsonpath={.status.observedGeneration}=2", 30)

    server.kubectl("rollout", "status", replicas, "--timeout=180s")

    arguments = "jsonpath={.spec.template.spec.containers[0].args}"
    # llama-server divides the context among its two slots.
    assert '"--ctx-size","4096"' in server.kubectl("get", replicas, "-o", arguments)


def _leader(server: Server) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return server.kubectl("get", "lease", f"{server.name}-balancer", "-o", path)
