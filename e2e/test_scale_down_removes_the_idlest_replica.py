"""Fewer replicas: the idlest goes, whichever is newer, and no request is cut."""

import json
import subprocess
import time

import pytest

from load import load
from servers import SLOW, Server, spec


def test_the_idle_replica_goes_though_the_busy_one_is_newer(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, contextPerSlot=8192))
    [older] = server.replica_addresses()
    scale(server, 2)
    [newer] = set(server.replica_addresses()) - {older}

    asking = ask(server)
    if comes_to_work(server, {older}, {newer}) == {older}:
        left = asking
        asking = ask(server)
        comes_to_work(server, {older, newer})
        leave(left)
    comes_to_work(server, {newer})
    # Left to itself, Kubernetes would take the newer one.
    server.kubectl("scale", f"llama/{server.name}", "--replicas=1")
    server.wait("jsonpath={.status.replicasReady}=1/1")
    there = server.replica_addresses()
    said, _ = asking.communicate()

    assert there == [newer]
    assert json.loads(said.split("data: ")[-1])["stop"] is True


@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.long)])
def test_no_request_is_cut_however_often_replicas_go(server: Server, times: int) -> None:
    server.ready(spec(SLOW))

    with load(server, clients=3, tokens=200) as found:
        for _ in range(times):
            scale(server, 2)
            scale(server, 1)

    assert found.failed == []
    assert len(found.endings) >= times


def scale(server: Server, replicas: int) -> None:
    """Have so many replicas, and wait until so many serve."""
    server.kubectl("scale", f"llama/{server.name}", f"--replicas={replicas}")
    server.wait(f"jsonpath={{.status.replicasReady}}={replicas}/{replicas}")


def ask(server: Server) -> subprocess.Popen[str]:
    """A client whose request lasts for longer than it takes to scale."""
    body = {"prompt": "x", "n_predict": 4000, "stream": True, "ignore_eos": True}
    request = ("curl", "-sSN", f"{server.url}/completion", "-d", json.dumps(body))
    return server.cluster.start("run", *request)


def leave(asking: subprocess.Popen[str]) -> None:
    """Go away before the answer has come."""
    asking.terminate()
    asking.communicate()


def comes_to_work(server: Server, *wanted: set[str]) -> set[str]:
    """Wait until just these replicas are at work, or those; which."""
    deadline = time.monotonic() + 60
    while (busy := {each for each in server.replica_addresses() if at_work(server, each)}) not in (
        wanted
    ):
        assert time.monotonic() < deadline, busy
    return busy


def at_work(server: Server, replica: str) -> bool:
    slots = json.loads(server.cluster.read("run", "curl", "-sS", f"http://{replica}/slots"))
    return any(slot["is_processing"] for slot in slots)
