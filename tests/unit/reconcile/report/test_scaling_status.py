"""Scaling in the status: ScalingActive, the decision, and the last ten changes."""

from datetime import timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    START,
    Operator,
    apply_server,
    condition,
    demand_report,
    replica_count,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.api.conditions import rfc3339


async def deploy_with_balancer(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server whose balancer can be polled, and was not polled yet."""
    apply_server(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=4)
    await operator.reconcile()


async def deploy_scaled(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server that demand has scaled to two replicas; it is ten seconds after noon."""
    await deploy_with_balancer(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=2)
    await operator.run_for(5)
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=6, total=8)
    await operator.run_for(5)


async def set_replicas(cluster: FakeCluster, operator: Operator, replicas: int) -> None:
    """Set spec.replicas and reconcile."""
    update_spec(cluster, replicas=replicas)
    await operator.reconcile()


def scaling_active(cluster: FakeCluster) -> tuple[str, str]:
    """Status and reason of the condition ScalingActive."""
    found = condition(cluster, "ScalingActive")
    return found["status"], found["reason"]


def after_noon(**passed: float) -> str:
    return rfc3339(START + timedelta(**passed))


async def test_without_autoscaling_scaling_is_disabled(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_balancer(cluster, operator)

    assert scaling_active(cluster) == ("False", "ScalingDisabled")


async def test_before_the_first_metrics_scaling_is_starting(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_balancer(cluster, operator, autoscaling={"maxReplicas": 2})

    assert scaling_active(cluster) == ("Unknown", "Starting")


async def test_keeping_within_the_range_is_not_scaling_by_metrics(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, replicas=5)
    await operator.reconcile()

    update_spec(cluster, autoscaling={"maxReplicas": 2})
    await operator.reconcile()

    assert replica_count(cluster) == 2
    assert scaling_active(cluster) == ("Unknown", "Starting")


async def test_metrics_make_scaling_active_and_their_absence_has_a_transition_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_scaled(cluster, operator)
    active = scaling_active(cluster)

    operator.balancers.reports.clear()
    await operator.run_for(30)
    first = condition(cluster, "ScalingActive")
    degraded = condition(cluster, "Degraded")
    await operator.run_for(1200)
    last = condition(cluster, "ScalingActive")

    assert active == ("True", "ValidMetricFound")
    assert (first["status"], first["reason"]) == ("False", "MetricsUnavailable")
    assert first["message"].startswith("no metrics from any balancer")
    # A report is current for five seconds.
    assert first["lastTransitionTime"] == after_noon(seconds=16)
    assert last == first
    assert (degraded["status"], degraded["reason"]) == ("True", "MetricsUnavailable")


async def test_replicas_are_kept_while_no_balancer_reports(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_scaled(cluster, operator)
    cluster.writes.clear()

    operator.balancers.reports.clear()
    await operator.run_for(1200)

    assert replica_count(cluster) == 2
    assert {write.kind for write in cluster.writes} == {"LlamaServer"}


async def test_new_metrics_make_scaling_active_and_start_a_new_window(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_scaled(cluster, operator)
    operator.balancers.reports.clear()
    await operator.run_for(1200)

    operator.balancers.reports[BALANCER_HOST] = demand_report(total=8)
    await operator.run_for(8)
    again = condition(cluster, "ScalingActive")
    await operator.run_for(295)
    within_window = replica_count(cluster)
    await operator.run_for(8)

    assert (again["status"], again["reason"]) == ("True", "ValidMetricFound")
    assert again["lastTransitionTime"] > after_noon(seconds=1210)
    assert within_window == 2
    assert replica_count(cluster) == 1


@pytest.mark.parametrize("kind", ["ScalingActive", "Degraded"])
@pytest.mark.parametrize("seconds", [1, 60], ids=["warming up", "warmed up"])
async def test_a_restarted_operator_keeps_the_conditions_while_metrics_are_absent(
    cluster: FakeCluster, operator: Operator, seconds: int, kind: str
) -> None:
    await deploy_scaled(cluster, operator)
    operator.balancers.reports.clear()
    await operator.run_for(30)
    before = condition(cluster, kind)
    assert before["reason"] == "MetricsUnavailable"

    restarted = Operator(cluster, time=operator.time, balancers=operator.balancers)
    await restarted.reconcile()
    await restarted.run_for(seconds)

    assert condition(cluster, kind) == before


async def test_absent_metrics_are_reported_for_a_server_at_zero(
    cluster: FakeCluster, operator: Operator
) -> None:
    autoscaling = {"minReplicas": 0, "maxReplicas": 1}
    await deploy_with_balancer(cluster, operator, autoscaling=autoscaling)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(10)

    operator.balancers.reports.clear()
    await operator.run_for(30)

    assert not server_status(cluster)["readyReplicas"]
    assert scaling_active(cluster) == ("False", "MetricsUnavailable")


async def test_the_history_has_the_last_ten_changes_newest_first(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_balancer(cluster, operator, replicas=1)
    for replicas in range(2, 14):
        operator.time.elapsed += 60
        await set_replicas(cluster, operator, replicas)

    history = server_status(cluster)["scaling"]["history"]

    assert [(each["from"], each["to"]) for each in history] == [
        (replicas - 1, replicas) for replicas in range(13, 3, -1)
    ]
    assert history[0]["reason"] == "Manual"
    assert history[0]["message"] == "spec.replicas is 13"
    assert history[0]["time"] > history[1]["time"]


@pytest.mark.parametrize("passes", [1, 5])
async def test_further_passes_add_nothing_to_the_history(
    cluster: FakeCluster, operator: Operator, passes: int
) -> None:
    await deploy_with_balancer(cluster, operator, replicas=1)
    await set_replicas(cluster, operator, 2)
    for _ in range(passes):
        await operator.reconcile()

    assert len(server_status(cluster)["scaling"]["history"]) == 1


async def test_the_transition_time_changes_with_the_decision_only(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_balancer(cluster, operator, slots=4, autoscaling={"maxReplicas": 2})
    await operator.run_for(1)
    before = server_status(cluster)["scaling"]["lastTransitionTime"]

    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    await operator.run_for(60)
    same_decision = server_status(cluster)["scaling"]["lastTransitionTime"]
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4)
    await operator.run_for(1)

    assert same_decision == before
    assert server_status(cluster)["scaling"]["lastTransitionTime"] > before


async def test_the_status_has_both_current_and_desired_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_scaled(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=8, queued=4, total=8)
    await operator.run_for(5)
    scaling = server_status(cluster)["scaling"]
    roll_out(cluster)
    await operator.reconcile()

    assert (scaling["currentReplicas"], scaling["desiredReplicas"]) == (2, 3)
    assert server_status(cluster)["scaling"]["currentReplicas"] == 3
