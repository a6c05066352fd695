"""Fewer replicas: the idlest goes, whichever is newer, and no request is cut.

`ROUNDS=200 pytest -rP e2e/test_the_idlest_replica_goes.py` does it two hundred times.
"""

import os
from concurrent.futures import ThreadPoolExecutor

from load import load
from servers import SLOW, Server, spec

ROUNDS = int(os.environ.get("ROUNDS", "5"))
LONG = 3000
"""Tokens of a request that lasts for longer than a replica takes to come."""


def test_the_idle_replica_goes_though_the_busy_one_is_newer(server: Server) -> None:
    one_slot = spec(SLOW, slots=1, contextPerSlot=4096)
    server.ready(one_slot)
    [older] = server.replica_addresses()

    with ThreadPoolExecutor() as clients:
        first = clients.submit(server.chat, tokens=LONG)
        server.wait("jsonpath={.status.slots.busy}=1")
        scale(server, 2)
        second = clients.submit(server.chat, tokens=LONG)
        server.wait("jsonpath={.status.slots.busy}=2")
        # The older one is idle from now on. Left to itself, Kubernetes would take the newer.
        [ended] = first.result()
        server.kubectl("scale", f"llama/{server.name}", "--replicas=1")
        assert not second.done()
        server.wait("jsonpath={.status.replicasReady}=1/1")
        [left] = server.replica_addresses()
        [cut] = second.result()

    assert left != older
    assert ended["answered"]
    assert cut["answered"], cut


def test_no_request_is_cut_however_often_replicas_go(server: Server) -> None:
    server.ready(spec(SLOW))

    with load(server, clients=3, tokens=200) as found:
        for _ in range(ROUNDS):
            scale(server, 2)
            scale(server, 1)

    assert found.failed == []
    assert len(found.endings) >= ROUNDS


def scale(server: Server, replicas: int) -> None:
    """Have so many replicas, and wait until so many serve."""
    server.kubectl("scale", f"llama/{server.name}", f"--replicas={replicas}")
    server.wait(f"jsonpath={{.status.replicasReady}}={replicas}/{replicas}")
