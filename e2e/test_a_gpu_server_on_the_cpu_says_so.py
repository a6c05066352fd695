"""A llama-server that got a GPU and does not use it looks well: its log says otherwise."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that advertises one fake GPU."""
    cluster.call("gpus", "1")
    yield
    cluster.call("gpus", "0")


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_server_of_a_cpu_image_is_ready_and_degraded(server: Server) -> None:
    # The image of the tests is built for CPUs, as the chart's default is.
    server.ready(spec(gpu={"count": 1}))

    message = server.wait_for_reason("AcceleratorReady", "NoDeviceFound")

    assert server.condition("AcceleratorReady")["status"] == "False"
    assert "llama-server found no GPU, and computes on the CPU; check that the image" in message
    degraded = server.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "NoDeviceFound")
    [result] = server.chat()
    assert result["completed"], result


def test_a_server_without_gpus_has_no_such_condition(server: Server) -> None:
    server.ready(spec())

    conditions = server.get()["status"]["conditions"]
    assert "AcceleratorReady" not in {each["type"] for each in conditions}
