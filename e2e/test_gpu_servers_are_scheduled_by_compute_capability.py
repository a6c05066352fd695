"""GPUs are counted and matched by compute capability; a server that lacks one says so."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster, image_for_7_5


@pytest.fixture
def one_t4(cluster: Cluster) -> Iterator[None]:
    """A node that seems to have one GPU of compute capability 7.5."""
    cluster.call("gpus", "1", "--compute", "7.5")
    yield
    cluster.call("gpus", "0")


@pytest.mark.usefixtures("one_t4")
def test_a_gpu_server_lands_on_a_matching_gpu(server: Server) -> None:
    server.ready(spec(gpu={"count": 1, "computeArch": "sm_75"}))

    [pod] = [pod for pod in server.children("pods") if "replica" in pod["metadata"]["name"]]
    assert pod["spec"]["containers"][0]["image"] == image_for_7_5()
    [ending] = server.chat()

    assert ending["answered"], ending


@pytest.mark.usefixtures("one_t4")
def test_a_compute_arch_that_no_node_has_is_said_with_those_that_there_are(server: Server) -> None:
    server.apply(spec(gpu={"count": 1, "computeArch": 9.0}))

    message = server.wait_for_reason("Ready", "NoMatchingNode")

    assert "no node has GPUs of compute capability 9.0: the cluster has 7.5" in message
    # Before any image is pulled: the pod has no node.
    [pod] = [pod for pod in server.children("pods") if "replica" in pod["metadata"]["name"]]
    assert "nodeName" not in pod["spec"]
    # Good again heals.
    server.ready(spec(gpu={"count": 1, "computeArch": "compute_75"}))


@pytest.mark.usefixtures("one_t4")
def test_a_replica_without_a_free_gpu_says_what_it_waits_for(server: Server) -> None:
    server.apply(spec(gpu={"count": 1}, replicas=2))

    message = server.wait_for_reason("ReplicasReady", "Unschedulable")

    assert "waiting for 1 nvidia.com/gpu" in message
