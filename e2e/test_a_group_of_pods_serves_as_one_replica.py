"""Pods that share a model through llama.cpp's RPC serve, scale and are deleted as one replica."""

import time

from load import load
from servers import SLOW, Server, spec

WORKER = "llama-worker-0-0"
RECOVERY_SECONDS = 30


def test_a_group_of_pods_serves_as_one_replica(server: Server) -> None:
    group = spec(SLOW, workers={"count": 2})
    server.apply(group)
    server.wait("condition=Ready", 180)

    [result] = server.chat(tokens=50)

    assert result["completed"], result
    assert result["tokens"] == 50
    assert server.get()["status"]["readyReplicas"] == 1
    server.wait("jsonpath={.status.slots.total}=2", 30)
    assert len(server.children("pods")) == 3 + 2  # with two balancers
    # Without workers a single pod serves, and the group is deleted.
    server.apply(spec(SLOW))
    server.kubectl("wait", "--for=delete", "statefulsets", "-l", _selector(server), "--timeout=90s")
    server.wait("condition=Ready", 120)
    assert server.chat()[0]["completed"]


def test_a_killed_worker_ends_only_the_responses_of_its_group(server: Server) -> None:
    other = Server(server.cluster, server.namespace, "other")
    server.apply(spec(SLOW, workers={"count": 1}))
    other.apply(spec(SLOW))
    for each in (server, other):
        each.wait("condition=Ready", 180)
    with (
        load(other, clients=3, tokens=50) as undisturbed,
        load(server, clients=3, tokens=50) as disturbed,
    ):
        server.wait("jsonpath={.status.slots.busy}=2", 30)

        # Without the grace period in which it waits for its leader.
        server.kubectl("delete", "pod", WORKER, "--force", "--grace-period=0")
        server.kubectl("wait", "--for=create", f"pod/{WORKER}", "--timeout=30s")
        server.kubectl("wait", "--for=condition=Ready", f"pod/{WORKER}", "--timeout=90s")
        returned = time.monotonic()
        [result] = server.chat(tokens=4)
        seconds = time.monotonic() - returned

    print(f"a request was completed {seconds:.1f} s after the worker was ready")
    assert result["completed"], result
    assert seconds < RECOVERY_SECONDS
    assert undisturbed.failed == []
    # Queued requests wait for the group.
    assert len(disturbed.failed) <= 2, disturbed.failed
    assert server.get()["status"]["readyReplicas"] == 1


def _selector(server: Server) -> str:
    return f"slotkeeper.dev/server={server.name}"
