"""Servers whose replicas have workers: StatefulSets instead of a Deployment."""

from typing import Any

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    edit_spec,
    pod_of,
    roll_out,
    server_status,
    update_spec,
)
from pod_statuses import unschedulable
from slotkeeper.kube.kinds import DEPLOYMENTS, NETWORK_POLICIES, STATEFUL_SETS

SETS = ["chat-replicas", "chat-worker-0", "chat-worker-1"]


async def deploy_groups(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server whose replicas have two workers each."""
    await deploy(cluster, operator, workers={"count": 2}, **spec)


async def test_a_ready_group_is_a_ready_replica(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_groups(cluster, operator, replicas=2)

    assert sorted(cluster.by_name(STATEFUL_SETS)) == SETS
    assert set(cluster.by_name(DEPLOYMENTS)) == {"chat-balancer"}
    status = server_status(cluster)
    assert (status["replicas"], status["readyReplicas"], status["slots"]["total"]) == (2, 2, 8)
    assert condition(cluster, "Ready")["status"] == "True"


async def test_a_second_pass_over_groups_writes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_groups(cluster, operator)

    await operator.reconcile()

    assert cluster.writes == []


async def test_leaders_and_workers_are_scaled_together(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_groups(cluster, operator)

    update_spec(cluster, replicas=3)
    await operator.reconcile()

    sets = cluster.by_name(STATEFUL_SETS)
    assert {name: found["spec"]["replicas"] for name, found in sets.items()} == dict.fromkeys(
        SETS, 3
    )


async def test_the_set_of_a_surplus_worker_is_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_groups(cluster, operator)

    update_spec(cluster, workers={"count": 1})
    await operator.reconcile()

    assert sorted(cluster.by_name(STATEFUL_SETS)) == SETS[:2]


async def test_without_workers_a_deployment_replaces_the_stateful_sets(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_groups(cluster, operator)

    edit_spec(cluster, lambda spec: spec.pop("workers"))
    await operator.reconcile()

    assert set(cluster.by_name(DEPLOYMENTS)) == {"chat-balancer", "chat-replicas"}
    assert cluster.by_name(STATEFUL_SETS) == {}
    assert set(cluster.by_name(NETWORK_POLICIES)) == {"chat-replicas"}


async def test_a_server_that_gets_workers_keeps_its_number_of_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, replicas=3, workers=None)

    update_spec(cluster, workers={"count": 1})
    await operator.reconcile()

    assert cluster.by_name(STATEFUL_SETS)["chat-replicas"]["spec"]["replicas"] == 3
    assert set(cluster.by_name(DEPLOYMENTS)) == {"chat-balancer"}


async def test_the_problem_of_a_worker_is_reported_for_its_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    pod = pod_of(cluster.by_name(STATEFUL_SETS)["chat-worker-0"], ready=False)
    status = unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    cluster.put(pod | {"status": status})

    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert found["reason"] == "Unschedulable"
    assert found["message"].startswith("0 of 1 replicas ready; waiting for 1 nvidia.com/gpu")
