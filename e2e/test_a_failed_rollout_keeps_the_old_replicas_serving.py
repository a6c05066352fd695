"""A rollout that cannot finish is reported with its reason; the old replicas continue to serve."""

from collections.abc import Iterator

import pytest

from servers import QUICK, Server, Spec, spec
from stack import Cluster


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that advertises one fake GPU."""
    cluster.call("gpus", "1", "--compute", "7.5")
    yield
    cluster.call("gpus", "0")


def test_an_image_that_does_not_exist(server: Server) -> None:
    message = fail_rollout(server, spec(), spec(image="example.invalid/none:1"), "ImagePullBackOff")

    assert "example.invalid/none:1" in message


def test_a_model_that_does_not_exist(server: Server) -> None:
    missing = QUICK.replace("quick", "missing")

    message = fail_rollout(server, spec(), spec(missing), "ModelNotFound")

    assert missing in message


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_is_not_free(server: Server) -> None:
    # By default a GPU replica is deleted before its replacement is created; here it must not be.
    surge = {"maxSurge": 1, "maxUnavailable": 0}
    before = spec(gpu={"count": 1}, update=surge)

    message = fail_rollout(server, before, {**before, "contextPerSlot": 2048}, "Unschedulable")

    assert "waiting for 1 nvidia.com/gpu" in message


def fail_rollout(server: Server, before: Spec, after: Spec, reason: str) -> str:
    """Change a serving server to a spec that cannot be rolled out; return Degraded's message.

    Meanwhile the old pod must serve, and with the old spec the server must recover.
    """
    server.ready(before)
    pods = server.replica_addresses()

    server.apply(after)
    message = server.wait_for_reason("Degraded", reason)

    assert server.chat()[0]["completed"]
    server.apply(before)
    server.wait("condition=Degraded=false")
    server.wait("condition=ReplicasReady")
    assert server.replica_addresses() == pods
    return message
