"""The headers of a model tell whether it fits into the GPUs, and how long a context may be."""

from collections.abc import Iterator

import pytest

from servers import Server, spec
from stack import Cluster

pytestmark = pytest.mark.usefixtures("one_gpu")


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that advertises one fake GPU."""
    cluster.call("gpus", "1")
    yield
    cluster.call("gpus", "0")


def test_a_model_that_does_not_fit_by_its_plan_is_reported_and_served(server: Server) -> None:
    # The image of the tests is built for CPUs, so that it starts in any case.
    server.ready(spec(gpu={"count": 1, "memory": "1Mi"}))

    message = server.wait_for_reason("FitsMemory", "DoesNotFit")

    assert server.condition("FitsMemory")["status"] == "False"
    assert message.startswith("2 slots x 4096 tokens need ")
    assert " MiB of 1 MiB; no slot fits: the weights need " in message
    assert message.endswith(" and the driver 500 MiB")
    assert inspections(server) == []


def test_a_context_is_chosen_before_the_first_replica_starts(server: Server) -> None:
    server.ready(spec(contextPerSlot="auto", gpu={"count": 1, "memory": "8Gi"}))

    context = server.get()["status"]["memory"]["contextPerSlot"]
    assert server.condition("FitsMemory")["status"] == "True"
    [pod] = server.pods("replica")
    [llama_server] = pod["spec"]["containers"]
    arguments = llama_server["args"]
    assert arguments[arguments.index("--ctx-size") + 1] == str(2 * context)
    [result] = server.chat()
    assert result["completed"], result


def test_a_model_without_any_context_that_fits_does_not_start(server: Server) -> None:
    server.apply(spec(contextPerSlot="auto", gpu={"count": 1, "memory": "1Mi"}))

    message = server.wait_for_reason("Ready", "DoesNotFit")

    assert message.startswith("no context of 256 tokens fits into the GPUs with 2 slots")
    assert server.pods("replica") == []


def inspections(server: Server) -> list[str]:
    """Return the names of the Jobs that read headers."""
    selector = f"slotkeeper.dev/server={server.name},slotkeeper.dev/component=inspection"
    return server.kubectl("get", "jobs", "-l", selector, "--output=name").split()
