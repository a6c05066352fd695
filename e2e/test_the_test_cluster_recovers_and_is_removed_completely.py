"""The test cluster itself: `up` mends one whose processes died, `down` leaves nothing of it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.native import Native
from provider.paths import ClusterPaths
from provider.prerequisites import docker_available
from stack import Cluster

NAME = "crash"


@pytest.fixture(scope="module")
def fragile() -> Iterator[Cluster]:
    """A cluster of its own, beside the one of the other tests."""
    if docker_available():
        pytest.skip("kind's processes are Docker's to mend")
    cluster = Cluster(NAME)
    cluster.call("up")
    yield cluster
    cluster.call("down")


def test_a_cluster_whose_processes_were_killed_heals(fragile: Cluster) -> None:
    fragile.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    for record in Native(ClusterPaths(NAME)).processes.running().values():
        os.kill(record.identity.pid, signal.SIGKILL)

    status = fragile.attempt("status")
    fragile.call("up")

    assert status.returncode == 1
    assert fragile.get("configmap", "kept")["data"] == {"key": "value"}
    fragile.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")


def test_down_leaves_no_process_mount_or_folder(fragile: Cluster) -> None:
    started = Native(ClusterPaths(NAME)).processes.running().values()

    fragile.call("down")

    paths = ClusterPaths(NAME)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert len(started) >= 7
    assert [record for record in started if record.alive()] == []
    assert [line for line in mounts if f"slotkeeper/{NAME}" in line] == []
    assert not paths.state.exists()
    assert not paths.run.exists()
