"""Clients that vanish at each stage of a request leave llama-server and the balancer idle."""

import json
import sys
import time

from servers import SLOW, Server, spec
from stack import ROOT


def test_clients_that_vanish_leave_nothing_behind(server: Server) -> None:
    server.ready(spec(SLOW, slots=2, contextPerSlot=8192))
    script = str(ROOT / "e2e/disconnecting_client.py")

    stages = server.cluster.read("run", sys.executable, script, server.url).splitlines()

    assert "in mid-stream" in stages
    [replica] = server.replica_addresses()
    deadline = time.monotonic() + 10
    while _busy(server, f"http://{replica}") or _busy(server, server.url):
        assert time.monotonic() < deadline
    [ending] = server.chat(tokens=16)
    assert ending["answered"], ending


def _busy(server: Server, url: str) -> int:
    slots = json.loads(server.cluster.read("run", "curl", "-sS", f"{url}/slots"))
    return sum(slot["is_processing"] for slot in slots)
