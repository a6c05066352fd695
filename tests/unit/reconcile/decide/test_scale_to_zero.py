"""Servers with `minReplicas: 0`: the last replica is removed when idle, and a request wakes one."""

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    replica_count,
    roll_out,
    server_status,
)
from slotkeeper.kube.kinds import DEPLOYMENTS

TO_ZERO = {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 30}


async def deploy_at_zero(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server without replicas, whose balancer reports no requests."""
    await deploy(cluster, operator, autoscaling=TO_ZERO)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(2)


async def queue_request(operator: Operator, oldest: float = 0.0) -> None:
    """Let a request arrive while there is no replica, and the operator poll."""
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1, oldest=oldest)
    await operator.run_for(1)


async def deploy_woken(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server that a request has woken from zero; its replica serves the request."""
    await deploy_at_zero(cluster, operator)
    await queue_request(operator)
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    await operator.run_for(1)


async def test_a_new_server_has_a_balancer_and_no_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)

    assert replica_count(cluster) == 0
    assert cluster.by_name(DEPLOYMENTS)["chat-balancer"]["spec"]["replicas"] == 1
    assert condition(cluster, "ReplicasReady")["reason"] == "ScaledToZero"
    assert condition(cluster, "ModelReady")["reason"] == "ScaledToZero"
    assert server_status(cluster)["scaling"]["reason"] == "DesiredWithinRange"


async def test_a_server_at_zero_is_ready_and_not_while_it_starts(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    at_zero = condition(cluster, "Ready")
    await queue_request(operator)
    roll_out(cluster, ready=False)
    await operator.reconcile()
    starting = condition(cluster, "Ready")

    assert (at_zero["status"], at_zero["reason"]) == ("True", "ScaledToZero")
    assert at_zero["message"].startswith("scaled to zero; the next request to http://chat.")
    assert starting["status"] == "False"


async def test_a_server_at_zero_without_a_balancer_is_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, autoscaling=TO_ZERO)
    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "False"


async def test_a_queued_request_wakes_a_replica_at_the_next_poll(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)

    await queue_request(operator, oldest=0.4)

    scaling = server_status(cluster)["scaling"]
    assert replica_count(cluster) == 1
    assert scaling["reason"] == "DemandAboveCapacity"
    assert scaling["message"] == "busy 0/0, queued 1, oldest 0.4 s: 0 -> 1"


async def test_a_starting_replica_is_not_removed(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    await queue_request(operator)
    roll_out(cluster, ready=False)

    await operator.reconcile()
    await operator.run_for(60)

    assert replica_count(cluster) == 1
    assert condition(cluster, "ReplicasReady")["status"] == "False"


async def test_a_woken_server_is_ready_with_its_first_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_woken(cluster, operator)

    assert condition(cluster, "Ready")["status"] == "True"


async def test_the_last_replica_is_removed_after_the_idle_time_and_not_before(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_woken(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report()

    await operator.run_for(30)
    before = replica_count(cluster)
    await operator.run_for(1)

    assert (before, replica_count(cluster)) == (1, 0)
    assert server_status(cluster)["scaling"]["reason"] == "Idle"


async def test_a_restarted_operator_waits_for_the_whole_idle_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_woken(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(29)

    restarted = Operator(cluster, balancers=operator.balancers)
    await restarted.reconcile()
    await restarted.run_for(30)
    before = replica_count(cluster)
    await restarted.run_for(1)

    assert (before, replica_count(cluster)) == (1, 0)


async def test_a_request_right_after_the_scale_to_zero_wakes_a_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_woken(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(31)
    assert replica_count(cluster) == 0

    await queue_request(operator)

    assert replica_count(cluster) == 1


async def test_an_unreachable_balancer_removes_no_last_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_woken(cluster, operator)
    operator.balancers.reports.clear()

    await operator.run_for(400)

    assert replica_count(cluster) == 1


async def test_nothing_is_written_at_zero(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    await operator.run_for(400)
    cluster.writes.clear()

    await operator.run_for(400)

    assert cluster.writes == []
