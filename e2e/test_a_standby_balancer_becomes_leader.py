"""When a balancer is killed, only its own requests fail, and a standby leads within 5 seconds."""

from datetime import UTC, datetime
from typing import Any

from load import load
from servers import SLOW, Server, spec

CLIENTS = 4


def test_a_standby_becomes_leader_after_a_balancer_is_killed(server: Server) -> None:
    server.ready(spec(SLOW))
    server.kubectl("rollout", "status", f"deployment/{server.name}-balancer", "--timeout=60s")
    leader = server.kubectl(
        "get", "lease", f"{server.name}-balancer", "-o", "jsonpath={.spec.holderIdentity}"
    )

    with load(server, clients=CLIENTS, tokens=200) as outcome:
        server.wait("jsonpath={.status.slots.busy}=2", 30)
        # With the brackets the pattern does not match pkill's own command line.
        killed = datetime.now(UTC)
        server.cluster.read("run", "pkill", "-KILL", "-f", f"[-]-identity {leader}")
        while not server.chat(tokens=1)[0]["completed"]:
            pass

    lease = server.cluster.get("lease", f"{server.name}-balancer", namespace=server.namespace)
    acquired = datetime.fromisoformat(lease["spec"]["acquireTime"])
    assert 0 < (acquired - killed).total_seconds() < 5
    assert outcome.deferred == 0
    # Requests that the killed balancer was serving or queueing: at most one for each client.
    aborted = [result for result in outcome.failed if not _is_refused(result)]
    assert len(aborted) <= CLIENTS, aborted
    assert outcome.results[-1]["completed"]


def _is_refused(result: dict[str, Any]) -> bool:
    """Whether a new connection failed, which clients can retry.

    Until the balancer's endpoint is removed from the Service, connections to it are refused. While
    its process ends, the kernel may first accept a connection, and then reset it.
    """
    at_once = result["status"] == 0 and result["seconds"] < 0.5
    return "ConnectError" in result["error"] or at_once
