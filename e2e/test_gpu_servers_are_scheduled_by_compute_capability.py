"""Replicas are scheduled to GPUs of their compute capability; a missing GPU is reported."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster, image_for_7_5


@pytest.fixture
def one_t4(cluster: Cluster) -> Iterator[None]:
    """A node that advertises one fake GPU of compute capability 7.5."""
    cluster.call("gpus", "1", "--compute", "7.5")
    yield
    cluster.call("gpus", "0")


@pytest.mark.usefixtures("one_t4")
def test_a_gpu_server_is_scheduled_to_a_matching_gpu(server: Server) -> None:
    server.ready(spec(gpu={"count": 1, "computeArch": "sm_75"}))

    [pod] = [pod for pod in server.children("pods") if "replica" in pod["metadata"]["name"]]
    assert pod["spec"]["containers"][0]["image"] == image_for_7_5()
    [result] = server.chat()

    assert result["completed"], result


@pytest.mark.usefixtures("one_t4")
def test_auto_is_the_compute_capability_of_the_node(server: Server) -> None:
    server.ready(spec(gpu={"count": 1, "computeArch": "auto"}))

    [pod] = [pod for pod in server.children("pods") if "replica" in pod["metadata"]["name"]]
    assert pod["spec"]["containers"][0]["image"] == image_for_7_5()
    assert server.get()["status"]["gpu"] == {"computeArches": ["7.5"]}


@pytest.mark.usefixtures("one_t4")
def test_a_compute_arch_without_a_node_is_reported_with_the_existing_ones(server: Server) -> None:
    server.apply(spec(gpu={"count": 1, "computeArch": 9.0}))

    message = server.wait_for_reason("Ready", "NoMatchingNode")

    assert "no node has GPUs of compute capability 9.0: the cluster has 7.5" in message
    # Before any image is pulled: the pod has no node.
    [pod] = [pod for pod in server.children("pods") if "replica" in pod["metadata"]["name"]]
    assert "nodeName" not in pod["spec"]
    # A valid spec makes it Ready.
    server.ready(spec(gpu={"count": 1, "computeArch": "compute_75"}))


@pytest.mark.usefixtures("one_t4")
def test_a_replica_without_a_free_gpu_is_reported_as_unschedulable(server: Server) -> None:
    server.apply(spec(gpu={"count": 1}, replicas=2))

    message = server.wait_for_reason("ReplicasReady", "Unschedulable")

    assert "waiting for 1 nvidia.com/gpu" in message
