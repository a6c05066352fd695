"""While nobody can say what the demand is, replicas stay, and the server says so and since when."""

from collections.abc import Iterator
from contextlib import contextmanager

from field_watch import FieldWatch
from servers import Server, spec

WINDOW = 5


def scaling(least: int) -> dict[str, object]:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": WINDOW}}
    return {"minReplicas": least, "maxReplicas": 2, "behavior": behavior}


def test_replicas_stay_while_the_balancers_are_silent(server: Server) -> None:
    server.ready(spec(autoscaling=scaling(2)))
    server.wait("condition=ScalingActive")
    deployment = f"deployment/{server.name}-replicas"

    with FieldWatch(
        server.cluster, deployment, "{.spec.replicas}", namespace=server.namespace
    ) as replicas:
        with silent_balancers(server):
            message = server.wait_for_reason("ScalingActive", "MetricsUnavailable", 30)
            began = server.condition("ScalingActive")
            # Nothing asks for two of them any more.
            server.apply(spec(autoscaling=scaling(1)))
            fewer = replicas.wait_for(["2", "1"], 3 * WINDOW)
            still = server.condition("ScalingActive")
        server.wait("condition=ScalingActive", 30)
        went = replicas.wait_for(["2", "1"], 30)

    assert "no balancer tells its numbers" in message
    assert not fewer
    assert still == began | {"observedGeneration": still["observedGeneration"]}
    assert still["status"] == "False"
    assert went, replicas.seen


@contextmanager
def silent_balancers(server: Server) -> Iterator[None]:
    """All processes of the server's balancers stand still inside of the `with`."""
    pods = [
        pod["metadata"]["name"]
        for pod in server.children("pods")
        if pod["metadata"]["labels"]["slotkeeper.dev/component"] == "balancer"
    ]
    try:
        for pod in pods:
            _signal(server, "STOP", pod)
        yield
    finally:
        for pod in pods:
            _signal(server, "CONT", pod)


def _signal(server: Server, signal: str, pod: str) -> None:
    # The brackets keep the pattern from matching the command that carries it.
    server.cluster.read("run", "pkill", f"-{signal}", "-f", f"[-]-identity {pod}")
