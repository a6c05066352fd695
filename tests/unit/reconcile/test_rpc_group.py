"""Servers whose replicas have workers."""

from typing import Any

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    change_spec,
    condition,
    pod_of,
    roll_out,
    server_status,
    stored,
)
from slotkeeper.kube.kinds import DEPLOYMENTS, NETWORK_POLICIES, STATEFUL_SETS

SETS = ["chat-replicas", "chat-worker-0", "chat-worker-1"]


async def settled(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server whose groups run, and of which all is said."""
    stored(cluster, **{"workers": {"count": 2}, **spec})
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    cluster.writes.clear()


async def test_a_group_that_runs_is_a_replica(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator, replicas=2)

    assert sorted(cluster.named(STATEFUL_SETS)) == SETS
    assert set(cluster.named(DEPLOYMENTS)) == {"chat-balancer"}
    status = server_status(cluster)
    assert (status["replicas"], status["readyReplicas"], status["slots"]["total"]) == (2, 2, 8)
    assert condition(cluster, "Ready")["status"] == "True"


async def test_groups_at_rest_are_left_alone(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator)

    await operator.reconcile()

    assert cluster.writes == []


async def test_all_of_a_group_is_scaled(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator)

    change_spec(cluster, lambda spec: spec.update(replicas=3))
    await operator.reconcile()

    sets = cluster.named(STATEFUL_SETS)
    assert {name: found["spec"]["replicas"] for name, found in sets.items()} == dict.fromkeys(
        SETS, 3
    )


async def test_a_worker_too_many_goes(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator)

    change_spec(cluster, lambda spec: spec.update(workers={"count": 1}))
    await operator.reconcile()

    assert sorted(cluster.named(STATEFUL_SETS)) == SETS[:2]


async def test_without_workers_a_replica_is_a_pod_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)

    change_spec(cluster, lambda spec: spec.pop("workers"))
    await operator.reconcile()

    assert set(cluster.named(DEPLOYMENTS)) == {"chat-balancer", "chat-replicas"}
    assert cluster.named(STATEFUL_SETS) == {}
    assert set(cluster.named(NETWORK_POLICIES)) == {"chat-replicas"}


async def test_a_server_that_gets_workers_keeps_its_number_of_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, replicas=3, workers=None)

    change_spec(cluster, lambda spec: spec.update(workers={"count": 1}))
    await operator.reconcile()

    assert cluster.named(STATEFUL_SETS)["chat-replicas"]["spec"]["replicas"] == 3
    assert set(cluster.named(DEPLOYMENTS)) == {"chat-balancer"}


async def test_what_keeps_a_worker_from_running_is_said_of_its_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    pod = pod_of(cluster.named(STATEFUL_SETS)["chat-worker-0"], ready=False)
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }
    cluster.put(pod | {"status": {"conditions": [unschedulable]}})

    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert found["reason"] == "Unschedulable"
    assert found["message"].startswith("0 of 1 replicas ready; waiting for 1 nvidia.com/gpu")
