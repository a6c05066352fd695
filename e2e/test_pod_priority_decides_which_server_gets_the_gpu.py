"""One GPU for two servers: the more urgent one has it, the other waits and holds up nobody else."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster

ONE_GPU = {"count": 1}


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that seems to have one GPU, and two priorities for pods."""
    cluster.call("gpus", "1", "--compute", "7.5")
    cluster.apply(priority("e2e-batch", -10), priority("e2e-urgent", 10))
    yield
    cluster.kubectl("delete", "priorityclass", "e2e-batch", "e2e-urgent")
    cluster.call("gpus", "0")


def priority(name: str, value: int) -> dict[str, object]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
    }


def of_priority(name: str) -> dict[str, object]:
    return spec(gpu=ONE_GPU, placement={"priorityClassName": name})


@pytest.mark.usefixtures("one_gpu")
def test_priority_decides_who_waits_for_a_gpu(server: Server) -> None:
    urgent = Server(server.cluster, server.namespace, "urgent")
    without_gpu = Server(server.cluster, server.namespace, "small")
    server.ready(of_priority("e2e-batch"))

    urgent.ready(of_priority("e2e-urgent"))
    message = server.wait_for_reason("ReplicasReady", "Unschedulable")
    without_gpu.ready(spec())

    assert "waiting for 1 nvidia.com/gpu" in message
    assert all(each.chat()[0]["answered"] for each in (urgent, without_gpu))
    # The GPU comes free: whoever waited for it goes on.
    urgent.kubectl("delete", "llama", urgent.name)
    server.wait("condition=Ready")
