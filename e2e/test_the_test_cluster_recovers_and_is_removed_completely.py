"""The test cluster itself: `up` restarts killed processes, `down` removes everything."""

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
def own_cluster() -> Iterator[Cluster]:
    """A second cluster, for this file only."""
    if docker_available():
        pytest.skip("with kind, Docker restarts the processes")
    cluster = Cluster(NAME)
    cluster.call("up")
    yield cluster
    cluster.call("down")


def test_a_cluster_recovers_after_its_processes_were_killed(own_cluster: Cluster) -> None:
    own_cluster.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    for record in Native(ClusterPaths(NAME)).processes.running().values():
        os.kill(record.identity.pid, signal.SIGKILL)

    status = own_cluster.attempt("status")
    own_cluster.call("up")

    assert status.returncode == 1
    assert own_cluster.get("configmap", "kept")["data"] == {"key": "value"}
    own_cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")


def test_down_leaves_no_process_mount_or_folder(own_cluster: Cluster) -> None:
    started = Native(ClusterPaths(NAME)).processes.running().values()

    own_cluster.call("down")

    paths = ClusterPaths(NAME)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert len(started) >= 7
    assert [record for record in started if record.alive()] == []
    assert [line for line in mounts if f"slotkeeper/{NAME}" in line] == []
    assert not paths.state.exists()
    assert not paths.run.exists()
