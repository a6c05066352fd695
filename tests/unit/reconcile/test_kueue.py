"""Replicas in a queue of Kueue: its contract is a label and scheduling gates of pods."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    pod_of,
    published_blocker,
    replica_count,
    roll_out,
    update_spec,
)
from pod_statuses import SCHEDULING_GATED
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, STATEFUL_SETS

QUEUED: dict[str, Any] = {"placement": {"queueName": "team-a"}}
LABEL = "kueue.x-k8s.io/queue-name"
GATE = "kueue.x-k8s.io/admission"
WAITING = (
    "waiting for admission by Kueue to queue team-a: see kubectl describe --namespace=default "
    "workloads.kueue.x-k8s.io"
)


def put_gated(cluster: FakeCluster, index: int = 0, gates: tuple[str, ...] = (GATE,)) -> None:
    """Create a pod of a replica as Kueue's webhook changes it."""
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], index, ready=False)
    named = [{"name": gate} for gate in gates]
    spec: Manifest = {**pod["spec"], "schedulingGates": named}
    cluster.put({**pod, "spec": spec, "status": SCHEDULING_GATED})


async def deploy_gated(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    apply_server(cluster, **{**QUEUED, **spec})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    for index in range(replica_count(cluster)):
        put_gated(cluster, index)
    await operator.reconcile()


async def test_the_label_is_on_the_pods_of_replicas_and_on_no_others(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, **QUEUED)
    await operator.reconcile()

    found = {
        name: deployment["spec"]["template"]["metadata"]["labels"].get(LABEL)
        for name, deployment in cluster.by_name(DEPLOYMENTS).items()
    }
    assert found == {"chat-replicas": "team-a", "chat-balancer": None}


async def test_the_label_is_set_by_its_field_only(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, podTemplate={"labels": {LABEL: "team-a"}})
    await operator.reconcile()

    found = condition(cluster, "Ready")
    assert found["reason"] == "InvalidSpec"
    assert f"must not contain {LABEL}: set placement.queueName" in found["message"]


async def test_each_pod_of_a_group_has_the_label(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, **QUEUED, workers={"count": 1})
    await operator.reconcile()

    sets = cluster.by_name(STATEFUL_SETS).values()
    assert [each["spec"]["template"]["metadata"]["labels"][LABEL] for each in sets] == [
        "team-a",
        "team-a",
    ]


async def test_gated_replicas_are_reported_and_are_no_fault(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gated(cluster, operator)

    for kind in ("Ready", "ReplicasReady"):
        found = condition(cluster, kind)
        assert (found["status"], found["reason"]) == ("False", "SchedulingGated")
        assert WAITING in found["message"]
    assert condition(cluster, "Degraded")["status"] == "False"


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ((GATE, "kueue.x-k8s.io/topology"), WAITING),
        (("example.com/licence",), "waiting for scheduling gates to be removed: example.com/lic"),
        ((GATE, "example.com/licence"), f"scheduling gates to be removed: {GATE}, example.com/lic"),
    ],
)
async def test_gates_of_others_are_named(
    cluster: FakeCluster, operator: Operator, gates: tuple[str, ...], message: str
) -> None:
    await deploy_gated(cluster, operator)

    put_gated(cluster, 0, gates)
    await operator.reconcile()

    assert message in condition(cluster, "ReplicasReady")["message"]


async def test_an_admitted_replica_makes_the_server_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gated(cluster, operator)

    roll_out(cluster)
    await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "Serving"


async def test_clients_are_told_and_their_requests_wait(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gated(cluster, operator)

    blocker = published_blocker(cluster)

    assert blocker is not None
    assert (blocker.reason, blocker.message) == ("SchedulingGated", WAITING)
    assert not blocker.permanent


async def test_waiting_replicas_change_no_decision() -> None:
    starting, gated = [await decisions(gated=gated) for gated in (False, True)]

    assert gated == starting
    assert (max(gated), gated[-1]) == (3, 1)


async def decisions(*, gated: bool) -> list[int]:
    """The replicas of a server whose demand rises and ends while the second one does not start."""
    cluster = FakeCluster()
    operator = Operator(cluster)
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    autoscaling = {"maxReplicas": 3, "behavior": behavior}
    await deploy(cluster, operator, **QUEUED, slots=4, autoscaling=autoscaling)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    found = []
    for _ in range(10):
        await operator.run_for(20)
        found.append(replica_count(cluster))
        for index in range(1, found[-1]):
            if gated:
                put_gated(cluster, index)
            else:
                deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
                cluster.put(pod_of(deployment, index, ready=False))
        if len(found) == 3:
            operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=9)
        if len(found) == 5:
            operator.balancers.reports[BALANCER_HOST] = demand_report()
    return found


async def test_a_server_with_its_minimum_stays_ready_while_more_replicas_wait(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, **QUEUED, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    await operator.run_for(3)
    roll_out(cluster)

    put_gated(cluster, 1)
    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "True"
    assert WAITING in condition(cluster, "ReplicasReady")["message"]


async def test_the_queue_of_a_namespace_is_a_field_conflict_with_a_remedy(
    cluster: FakeCluster, operator: Operator
) -> None:
    def set_default_queue(found: Any) -> None:
        if found["kind"] == "Deployment":
            for each in (found, found["spec"]["template"]):
                each["metadata"]["labels"][LABEL] = "default"

    cluster.webhook = set_default_queue
    apply_server(cluster, **QUEUED)
    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert found["reason"] == "FieldConflict"
    assert (
        f"Deployment chat-replicas: Kueue sets spec.template.metadata.labels[{LABEL}], since the "
        "namespace has or had a LocalQueue with the name default;"
    ) in found["message"]
    assert found["message"].endswith(
        "delete that LocalQueue, then the server's Deployments and StatefulSets, which are created "
        "again"
    )


async def test_a_suspended_server_gives_its_quota_back(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gated(cluster, operator)

    update_spec(cluster, suspend=True)
    await operator.reconcile()

    # Kueue releases the quota of a pod that is deleted, which the Deployment's controller does.
    assert replica_count(cluster) == 0
    for name in cluster.by_name(PODS):
        cluster.remove(PODS, "default", name)
    await operator.reconcile()
    assert condition(cluster, "Ready")["reason"] == "Suspended"

    update_spec(cluster, suspend=False)
    await operator.reconcile()
    assert replica_count(cluster) == 1
