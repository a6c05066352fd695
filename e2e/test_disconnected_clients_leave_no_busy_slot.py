"""After clients disconnect at each stage of a request, llama-server and the balancer are idle."""

import json
import sys
import time

from servers import SLOW, Server, spec
from stack import ROOT


def test_disconnected_clients_leave_no_busy_slot(server: Server) -> None:
    server.ready(spec(SLOW, slots=2, contextPerSlot=8192))
    script = str(ROOT / "e2e/disconnecting_client.py")

    stages = server.cluster.read("run", sys.executable, script, server.url).splitlines()

    assert "in the response stream" in stages
    [replica] = server.replica_addresses()
    deadline = time.monotonic() + 10
    while _busy(server, f"http://{replica}") or _busy(server, server.url):
        assert time.monotonic() < deadline
    [result] = server.chat(tokens=16)
    assert result["completed"], result


def _busy(server: Server, url: str) -> int:
    slots = json.loads(server.cluster.read("run", "curl", "-sS", f"{url}/slots"))
    return sum(slot["is_processing"] for slot in slots)
