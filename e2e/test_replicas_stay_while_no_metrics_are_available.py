"""Without metrics of the demand the replica count does not change, and the status reports it."""

from collections.abc import Iterator
from contextlib import contextmanager

from field_watch import FieldWatch
from servers import Server, spec

WINDOW = 5


def scaling(minimum: int) -> dict[str, object]:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": WINDOW}}
    return {"minReplicas": minimum, "maxReplicas": 2, "behavior": behavior}


def test_replicas_stay_while_no_balancer_responds(server: Server) -> None:
    server.ready(spec(autoscaling=scaling(2)))
    server.wait("condition=ScalingActive")
    deployment = f"deployment/{server.name}-replicas"

    with FieldWatch(
        server.cluster, deployment, "{.spec.replicas}", namespace=server.namespace
    ) as replicas:
        with stopped_balancers(server):
            message = server.wait_for_reason("ScalingActive", "MetricsUnavailable", 30)
            first = server.condition("ScalingActive")
            # From here on one replica is enough.
            server.apply(spec(autoscaling=scaling(1)))
            scaled_without_metrics = replicas.wait_for_values(["2", "1"], 3 * WINDOW)
            last = server.condition("ScalingActive")
        server.wait("condition=ScalingActive", 30)
        scaled_down = replicas.wait_for_values(["2", "1"], 30)

    assert "no metrics from any balancer" in message
    assert not scaled_without_metrics
    assert last == first | {"observedGeneration": last["observedGeneration"]}
    assert last["status"] == "False"
    assert scaled_down, replicas.values


@contextmanager
def stopped_balancers(server: Server) -> Iterator[None]:
    """Stop all processes of the server's balancers (SIGSTOP) inside of the `with`."""
    pods = [pod["metadata"]["name"] for pod in server.pods("balancer")]
    try:
        for pod in pods:
            _signal(server, "STOP", pod)
        yield
    finally:
        for pod in pods:
            _signal(server, "CONT", pod)


def _signal(server: Server, signal: str, pod: str) -> None:
    # With the brackets the pattern does not match pkill's own command line.
    server.cluster.read("run", "pkill", f"-{signal}", "-f", f"[-]-identity {pod}")
