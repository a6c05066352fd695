"""The real Kueue admits replicas as the quota of their queue allows, and the others wait."""

from collections.abc import Iterator
from typing import Any

import pytest

from addons import installed
from field_watch import FieldWatch
from kueue import DEFAULT, KUEUE, WORKLOADS, Queue, team_queue
from load import load
from servers import SLOW, Server, spec
from stack import Cluster

pytestmark = pytest.mark.long

GPU = "nvidia.com/gpu"
IDLE_SECONDS = 20


@pytest.fixture(scope="module")
def kueue(cluster: Cluster) -> Iterator[None]:
    """Kueue on a node with more GPUs than any quota has."""
    cluster.call("gpus", "4", "--compute", "7.5")
    with installed(cluster, KUEUE):
        yield
    cluster.call("gpus", "0")


@pytest.fixture
def queue(kueue: None, cluster: Cluster, namespace: str) -> Iterator[Queue]:  # noqa: ARG001
    with team_queue(cluster, namespace) as queue:
        yield queue


@pytest.fixture
def other(server: Server) -> Server:
    return Server(server.cluster, server.namespace, "other")


def quota(*, gpus: int, cpu: str = "10") -> dict[str, str]:
    return {"cpu": cpu, "memory": "100Gi", GPU: str(gpus)}


def queued(queue: Queue, **fields: Any) -> dict[str, Any]:
    return spec(**{"gpu": {"count": 1}, **fields}, placement={"queueName": queue.name})


def test_a_server_waits_until_another_gives_back_its_quota(
    queue: Queue, server: Server, other: Server
) -> None:
    queue.apply(quota(gpus=1))
    server.ready(queued(queue))
    other.apply(queued(queue))

    message = other.wait_for_reason("ReplicasReady", "SchedulingGated")

    assert f"waiting for admission by Kueue to queue {queue.name}" in message
    assert other.condition("Ready")["reason"] == "SchedulingGated"
    assert other.condition("Degraded")["status"] == "False"
    assert queue.admitted() == 1
    server.apply(queued(queue, suspend=True))
    other.wait("condition=Ready")
    assert other.chat()[0]["completed"]
    server.apply(queued(queue))
    server.wait_for_reason("ReplicasReady", "SchedulingGated")
    other.kubectl("delete", "llama", other.name)
    server.wait("condition=Ready")
    assert server.chat()[0]["completed"]


def test_a_queue_that_does_not_exist_is_named(queue: Queue, server: Server) -> None:
    server.apply(queued(queue))

    message = server.wait_for_reason("ReplicasReady", "SchedulingGated")

    # The operator may not read queues, but its message has the command that shows the reason.
    command = f"kubectl describe --namespace={server.namespace} {WORKLOADS}"
    assert f"to queue {queue.name}: see {command}" in message
    workloads = server.cluster.kubectl(*command.split()[1:])
    assert f"LocalQueue {queue.name} doesn't exist" in workloads
    queue.apply(quota(gpus=1))
    server.wait("condition=Ready")


def test_a_rollout_with_gpus_needs_no_more_quota(queue: Queue, server: Server) -> None:
    queue.apply(quota(gpus=1))
    server.ready(queued(queue))

    server.apply(queued(queue, slots=3))

    server.wait("jsonpath={.status.slots.total}=3")
    server.wait("condition=Ready")
    assert queue.admitted() == 1


def test_a_rollout_that_starts_the_new_replica_first_waits_for_its_quota(
    queue: Queue, server: Server
) -> None:
    queue.apply(quota(gpus=0, cpu="75m"))
    server.ready(queued(queue, gpu={"count": 0}))

    server.apply(queued(queue, gpu={"count": 0}, slots=3))

    server.wait_for_reason("ReplicasReady", "SchedulingGated")
    assert server.chat()[0]["completed"]
    queue.apply(quota(gpus=0, cpu="100m"))
    server.wait("jsonpath={.status.slots.total}=3")
    server.wait("condition=Ready")


def test_a_scale_down_removes_the_replica_that_waits(queue: Queue, server: Server) -> None:
    queue.apply(quota(gpus=2))
    server.ready(queued(queue, replicas=1))
    server.apply(queued(queue, replicas=3))
    server.wait("jsonpath={.status.readyReplicas}=2")
    server.wait_for_reason("ReplicasReady", "SchedulingGated")
    admitted = scheduled(server)
    assert len(admitted) == 2

    server.apply(queued(queue, replicas=2))

    server.wait("jsonpath={.status.replicasReady}=2/2")
    assert scheduled(server) == admitted


def scheduled(server: Server) -> set[str]:
    pods = server.pods("replica")
    return {pod["metadata"]["name"] for pod in pods if "nodeName" in pod["spec"]}


def test_a_preempted_replica_completes_its_requests(
    queue: Queue, server: Server, other: Server
) -> None:
    queue.apply(quota(gpus=1))
    server.ready(queued(queue, model=SLOW, podTemplate=priority("batch")))

    with load(server, clients=2, tokens=2000) as outcome:
        server.wait("jsonpath={.status.slots.busy}=2", 30)
        other.ready(queued(queue, podTemplate=priority("interactive")))
        server.wait_for_reason("ReplicasReady", "SchedulingGated")
        other.kubectl("delete", "llama", other.name)
        server.wait("condition=Ready")

    assert outcome.failed == []
    # Those that ran when the replica was preempted, and those that waited for its successor.
    assert len(outcome.results) >= 4


def priority(name: str) -> dict[str, Any]:
    return {"labels": {"kueue.x-k8s.io/priority-class": name}}


def test_each_pod_of_a_group_is_admitted(queue: Queue, server: Server) -> None:
    queue.apply(quota(gpus=1))
    server.apply(queued(queue, workers={"count": 1}))
    server.wait_for_reason("ReplicasReady", "SchedulingGated")
    assert queue.admitted() == 1

    queue.apply(quota(gpus=2))

    server.wait("condition=Ready", 180)
    assert server.chat()[0]["completed"]


def test_a_queue_of_the_whole_namespace_is_a_field_conflict(queue: Queue, server: Server) -> None:
    # One more than the server needs: Kueue does not admit what waits when pods of a queue that is
    # deleted release their quota.
    queue.apply(quota(gpus=2))
    queue.apply_default()
    server.ready(queued(queue))

    message = server.wait_for_reason("Degraded", "FieldConflict")

    assert "a LocalQueue with the name default" in message
    server.kubectl("delete", "localqueue", DEFAULT)
    selector = ("-l", f"slotkeeper.dev/server={server.name}")
    server.kubectl("delete", "deployments,statefulsets", *selector)
    server.wait("condition=Degraded=False")
    server.wait("condition=Ready")
    assert queue.admitted() == 1


def test_nothing_is_written_while_a_replica_waits(queue: Queue, server: Server) -> None:
    queue.apply(quota(gpus=1))
    server.ready(queued(queue, replicas=1))
    server.apply(queued(queue, replicas=2))
    server.wait_for_reason("ReplicasReady", "SchedulingGated")

    deployment = FieldWatch(
        server.cluster,
        "deployment/llama-replicas",
        "{.metadata.resourceVersion}",
        namespace=server.namespace,
    )
    with deployment:
        assert deployment.wait_for_start(IDLE_SECONDS)
        before = versions(server)
        changed = deployment.wait_for_value("", IDLE_SECONDS)

    assert not changed
    assert len(deployment.values) == 1
    assert versions(server) == before


def versions(server: Server) -> dict[str, str]:
    objects = [server.get(), *server.children("deployments,services,pods")]
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for each in objects
    }
