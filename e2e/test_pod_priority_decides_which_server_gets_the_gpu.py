"""One GPU for two servers: the one with the higher priority gets it, and no other is blocked."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster

ONE_GPU = {"count": 1}


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that advertises one fake GPU, and two PriorityClasses."""
    cluster.call("gpus", "1", "--compute", "7.5")
    cluster.apply(priority_class("e2e-batch", -10), priority_class("e2e-urgent", 10))
    yield
    cluster.kubectl("delete", "priorityclass", "e2e-batch", "e2e-urgent")
    cluster.call("gpus", "0")


def priority_class(name: str, value: int) -> dict[str, object]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
    }


def spec_with_priority(name: str) -> dict[str, object]:
    return spec(gpu=ONE_GPU, placement={"priorityClassName": name})


@pytest.mark.usefixtures("one_gpu")
def test_pod_priority_decides_which_server_gets_the_gpu(server: Server) -> None:
    urgent = Server(server.cluster, server.namespace, "urgent")
    without_gpu = Server(server.cluster, server.namespace, "small")
    server.ready(spec_with_priority("e2e-batch"))

    urgent.ready(spec_with_priority("e2e-urgent"))
    message = server.wait_for_reason("ReplicasReady", "Unschedulable")
    without_gpu.ready(spec())

    assert "waiting for 1 nvidia.com/gpu" in message
    assert all(each.chat()[0]["completed"] for each in (urgent, without_gpu))
    # When the GPU is free again, the waiting replica starts.
    urgent.kubectl("delete", "llama", urgent.name)
    server.wait("condition=Ready")
