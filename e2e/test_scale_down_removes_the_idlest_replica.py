"""Scale-down removes the replica with the fewest busy slots, and no request fails."""

import json
import subprocess
import time

import pytest

from load import load
from servers import SLOW, Server, spec


def test_the_idle_replica_is_removed_although_the_busy_one_is_newer(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, contextPerSlot=8192))
    [older] = server.replica_addresses()
    scale(server, 2)
    [newer] = set(server.replica_addresses()) - {older}

    client = start_request(server)
    if wait_until_busy(server, {older}, {newer}) == {older}:
        first = client
        client = start_request(server)
        wait_until_busy(server, {older, newer})
        disconnect(first)
    wait_until_busy(server, {newer})
    # By default Kubernetes would delete the newer pod.
    server.kubectl("scale", f"llama/{server.name}", "--replicas=1")
    server.wait("jsonpath={.status.replicasReady}=1/1")
    remaining = server.replica_addresses()
    response, _ = client.communicate()

    assert remaining == [newer]
    assert json.loads(response.split("data: ")[-1])["stop"] is True


@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.long)])
def test_no_request_fails_during_repeated_scale_downs(server: Server, times: int) -> None:
    server.ready(spec(SLOW))

    with load(server, clients=3, tokens=200) as outcome:
        for _ in range(times):
            scale(server, 2)
            scale(server, 1)

    assert outcome.failed == []
    assert len(outcome.results) >= times


def scale(server: Server, replicas: int) -> None:
    """Scale the server and wait until all replicas are ready."""
    server.kubectl("scale", f"llama/{server.name}", f"--replicas={replicas}")
    server.wait(f"jsonpath={{.status.replicasReady}}={replicas}/{replicas}")


def start_request(server: Server) -> subprocess.Popen[str]:
    """Start a client whose request takes longer than scaling does."""
    body = {"prompt": "x", "n_predict": 4000, "stream": True, "ignore_eos": True}
    request = ("curl", "-sSN", f"{server.url}/completion", "-d", json.dumps(body))
    return server.cluster.start("run", *request)


def disconnect(client: subprocess.Popen[str]) -> None:
    """Terminate a client before its response is complete."""
    client.terminate()
    client.communicate()


def wait_until_busy(server: Server, *expected: set[str]) -> set[str]:
    """Wait until the busy replicas are one of the expected sets; return that set."""
    deadline = time.monotonic() + 60
    while (busy := {each for each in server.replica_addresses() if is_busy(server, each)}) not in (
        expected
    ):
        assert time.monotonic() < deadline, busy
    return busy


def is_busy(server: Server, replica: str) -> bool:
    slots = json.loads(server.cluster.read("run", "curl", "-sS", f"http://{replica}/slots"))
    return any(slot["is_processing"] for slot in slots)
