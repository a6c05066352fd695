"""Conditions after a restart of the operator: kept while it starts, and right when it has."""

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    FakeTime,
    Operator,
    condition,
    demand_report,
    deploy,
)

AUTOSCALED = {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}


def restart(operator: Operator) -> Operator:
    """A new process, whose balancers do not respond unless a test lets them."""
    return Operator(operator.cluster, FakeTime(operator.time.elapsed))


async def test_metrics_that_are_missing_after_the_start_are_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    await deploy(cluster, operator, **AUTOSCALED)
    await operator.run_for(5)
    assert condition(cluster, "ScalingActive")["reason"] == "ValidMetricFound"

    restarted = restart(operator)
    await restarted.run_for(9)
    starting = condition(cluster, "ScalingActive")["reason"]
    await restarted.run_for(3)

    assert starting == "ValidMetricFound"
    assert condition(cluster, "ScalingActive")["reason"] == "MetricsUnavailable"
    assert condition(cluster, "Degraded")["reason"] == "MetricsUnavailable"


async def test_a_condition_of_the_start_does_not_outlast_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, **AUTOSCALED)

    restarted = restart(operator)
    await restarted.run_for(9)
    starting = condition(cluster, "ScalingActive")["reason"]
    await restarted.run_for(2)

    assert starting == "Starting"
    assert condition(cluster, "ScalingActive")["reason"] == "MetricsUnavailable"
    assert condition(cluster, "Degraded")["reason"] == "MetricsUnavailable"


async def test_the_end_of_the_start_causes_one_pass(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, **AUTOSCALED)
    restarted = restart(operator)
    await restarted.run_for(9)
    before = len(restarted.passes)

    await restarted.run_for(60)

    assert len(restarted.passes) - before == 1


async def test_without_autoscaling_the_end_of_the_start_causes_no_pass(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    restarted = restart(operator)
    await restarted.run_for(9)
    before = len(restarted.passes)

    await restarted.run_for(60)

    assert len(restarted.passes) == before
