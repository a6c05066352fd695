"""The number of replicas follows demand."""

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    condition,
    demand_report,
    deploy,
    edit_spec,
    event_messages,
    event_reasons,
    replica_count,
    roll_out,
    server_status,
)
from slotkeeper.kube.kinds import DEPLOYMENTS


async def test_demand_adds_a_replica_at_once_with_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1, oldest=3.2)

    await operator.run_for(3)

    assert replica_count(cluster) == 2
    assert event_messages(cluster, "ScaledUp") == ["busy 4/4, queued 1, oldest 3.2 s: 1 -> 2"]
    assert server_status(cluster)["scaling"]["desiredReplicas"] == 2


async def test_a_scale_up_leaves_the_server_ready(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    before = condition(cluster, "Ready")
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)

    await operator.run_for(3)
    await operator.reconcile()

    assert condition(cluster, "Ready") == before


async def test_low_demand_removes_a_replica_after_the_stabilization_window(
    cluster: FakeCluster, operator: Operator
) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3, "behavior": behavior})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    await operator.run_for(2)
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=8)
    await operator.reconcile()

    await operator.run_for(55)
    within_window = replica_count(cluster)
    await operator.run_for(10)

    assert (within_window, replica_count(cluster)) == (2, 1)
    assert "ScaledDown" in event_reasons(cluster)


async def test_an_unreachable_balancer_removes_no_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})
    cluster.edit(
        DEPLOYMENTS, "default", "chat-replicas", lambda found: found["spec"].update(replicas=2)
    )
    await operator.reconcile()

    await operator.run_for(200)

    assert replica_count(cluster) == 2
    assert server_status(cluster)["scaling"]["reason"] == "MetricsUnavailable"


async def test_a_raised_minimum_takes_effect_at_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})

    edit_spec(cluster, lambda spec: spec["autoscaling"].update(minReplicas=2))
    await operator.reconcile()

    assert replica_count(cluster) == 2


async def test_a_deleted_deployment_is_created_with_as_many_replicas_as_before(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=5)
    await operator.run_for(2)
    operator.balancers.reports.clear()
    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")

    await Operator(cluster).reconcile()

    assert replica_count(cluster) == 3
