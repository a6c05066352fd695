"""A balancer that is killed costs what ran through it; the others go on within five seconds."""

import time

from load import load
from servers import SLOW, Server, spec

CLIENTS = 4


def test_a_killed_balancer_is_followed_by_its_standby(server: Server) -> None:
    server.ready(spec(SLOW))
    server.kubectl("rollout", "status", f"deployment/{server.name}-balancer", "--timeout=60s")
    leader = server.kubectl(
        "get", "lease", f"{server.name}-balancer", "-o", "jsonpath={.spec.holderIdentity}"
    )

    with load(server, clients=CLIENTS, tokens=200) as found:
        server.wait("jsonpath={.status.slots.busy}=2", 30)
        # The brackets keep the pattern from matching the command that carries it.
        server.cluster.read("run", "pkill", "-KILL", "-f", f"[-]-identity {leader}")
        killed = time.monotonic()
        while not server.chat(tokens=1)[0]["answered"]:
            pass
        seconds = time.monotonic() - killed

    assert seconds < 5
    assert found.deferred == 0
    # Those that ran or waited through the killed one, once each at most. Until the Service drops
    # it, some that come anew are refused, which a client may try again.
    cut = [ending for ending in found.failed if "ConnectError" not in ending["error"]]
    assert len(cut) <= CLIENTS
    assert found.endings[-1]["answered"]
