"""A change that cannot be carried out says why, and the replicas that were there go on serving."""

from collections.abc import Iterator

import pytest

from servers import QUICK, Server, Spec, spec
from stack import Cluster


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that seems to have a single GPU."""
    cluster.call("gpus", "1", "--compute", "7.5")
    yield
    cluster.call("gpus", "0")


def test_an_image_that_is_not_there(server: Server) -> None:
    message = stuck(server, spec(), spec(image="example.invalid/none:1"), "ImagePullBackOff")

    assert "example.invalid/none:1" in message


def test_a_model_that_is_not_there(server: Server) -> None:
    missing = QUICK.replace("quick", "missing")

    message = stuck(server, spec(), spec(missing), "ModelNotFound")

    assert missing in message


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_is_not_free(server: Server) -> None:
    # By default a replica with GPUs goes before its successor comes; here it must not.
    surge = {"maxSurge": 1, "maxUnavailable": 0}
    before = spec(gpu={"count": 1}, update=surge)

    message = stuck(server, before, {**before, "contextPerSlot": 2048}, "Unschedulable")

    assert "waiting for 1 nvidia.com/gpu" in message


def stuck(server: Server, before: Spec, after: Spec, reason: str) -> str:
    """Change a server that serves into one that cannot be; what is said of it.

    Meanwhile it must serve from the pod that it had, and with its old spec it is well again.
    """
    server.ready(before)
    pods = server.replica_addresses()

    server.apply(after)
    message = server.wait_for_reason("Degraded", reason)

    assert server.chat()[0]["answered"]
    server.apply(before)
    server.wait("condition=Degraded=false")
    server.wait("condition=ReplicasReady")
    assert server.replica_addresses() == pods
    return message
