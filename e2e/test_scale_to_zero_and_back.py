"""A server without requests scales to zero; a request at any time starts a replica."""

import json
from statistics import median
from threading import Event
from time import monotonic

import pytest

from field_watch import FieldWatch
from servers import Server, spec
from stack import CHAT

TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 1}
REPLICAS = "llama-replicas"
"""Name of the Deployment, and prefix of its pods' names."""

POD = "{.metadata.name} {.metadata.deletionTimestamp} "
READY = '{.status.conditions[?(@.type=="Ready")].status}'
COLD_STARTS = 5


@pytest.fixture
def idle_server(server: Server) -> Server:
    """A server scaled to zero, which has downloaded and loaded its model before."""
    # It is Ready without replicas: the first request starts one.
    server.ready(spec(autoscaling=TO_ZERO))
    [result] = server.chat()
    assert result["completed"], result
    server.wait_until_scaled_to_zero()
    return server


def test_a_cold_start_takes_little_longer_than_the_pod(idle_server: Server) -> None:
    overheads = [_overhead(idle_server) for _ in range(COLD_STARTS)]

    print(f"cold start overhead: {', '.join(f'{each * 1000:.0f}' for each in overheads)} ms")
    print(f"median {median(overheads) * 1000:.0f} ms, minimum {min(overheads) * 1000:.0f} ms")
    # The minimum: other load on the machine can only add to it.
    assert min(overheads) <= 0.5


@pytest.mark.parametrize(
    ("resource", "path", "terminating"),
    [
        pytest.param(f"deployment/{REPLICAS}", "{.spec.replicas}", "0", id="scaled to zero"),
        pytest.param("pods", POD, f"{REPLICAS}- Z", id="pod terminating"),
        pytest.param("pods", POD + READY, f"{REPLICAS}- Z False", id="llama-server exited"),
    ],
)
def test_a_request_is_served_while_the_last_replica_terminates(
    idle_server: Server, resource: str, path: str, terminating: str
) -> None:
    client = idle_server.cluster.start("run", *CHAT, idle_server.url, "--stream", "--start-at-eof")
    client_input = client.stdin
    client_output = client.stdout
    assert client_input
    assert client_output
    started = Event()
    sent = Event()

    def send_when_terminating(value: str) -> None:
        if not all(part in value for part in terminating.split()):
            started.set()
        elif started.is_set() and not sent.is_set():
            sent.set()
            client_input.close()

    # The watch starts before the replica does: a second later it may be deleted again.
    with FieldWatch(
        idle_server.cluster,
        resource,
        path,
        namespace=idle_server.namespace,
        on_value=send_when_terminating,
    ) as watch:
        assert watch.wait_for_start(30)
        [first] = idle_server.chat()
        assert sent.wait(90), watch.values
        with client:
            second = json.loads(client_output.readline())

    assert first["completed"], first
    assert second["completed"], second


def _overhead(idle_server: Server) -> float:
    """Seconds from a request to its first token, less those from its pod's creation to Ready."""
    first_seen: dict[str, float] = {}

    def record(value: str) -> None:
        name, deleted, ready, *_ = [*value.split(" "), "", ""]
        if name.startswith(REPLICAS) and not deleted:
            first_seen.setdefault(ready, monotonic())

    path = POD + READY
    namespace = idle_server.namespace
    with FieldWatch(idle_server.cluster, "pods", path, namespace=namespace, on_value=record):
        [result] = idle_server.chat()
        idle_server.wait_until_scaled_to_zero()
    assert result["completed"], result
    pod_seconds = first_seen["True"] - min(first_seen.values())
    print(f"first token after {result['first_token_seconds']} s, pod Ready in {pod_seconds:.3f} s")
    return float(result["first_token_seconds"]) - pod_seconds
