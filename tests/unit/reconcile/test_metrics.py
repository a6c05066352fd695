"""Prometheus metrics of scaling decisions."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    demand_report,
    deploy,
    update_spec,
)
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot

OTHER = Key("default", "other")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, lambda: 0)


def value(registry: CollectorRegistry, name: str, key: Key = KEY, **labels: str) -> float | None:
    labels |= {"namespace": key.namespace, "name": key.name}
    return registry.get_sample_value(f"slotkeeper_autoscaler_{name}", labels)


def test_a_decision_is_counted_when_it_differs(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    before = None
    for replicas, reason, demand in (
        (1, "DesiredWithinRange", 2),
        (1, "DesiredWithinRange", 3),
        (2, "DemandAboveCapacity", 4),
        (3, "DemandAboveCapacity", 9),
        (3, "DesiredWithinRange", 9),
    ):
        decision = ScalingSnapshot(replicas, reason, demand)
        metrics.count_decision(KEY, before, decision)
        before = decision

    assert value(registry, "decisions_total", reason="DesiredWithinRange") == 2
    assert value(registry, "decisions_total", reason="DemandAboveCapacity") == 2


def test_a_deleted_server_leaves_no_series(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.count_decision(KEY, None, ScalingSnapshot(1, "DesiredWithinRange", 2))
    metrics.count_decision(OTHER, None, ScalingSnapshot(1, "DesiredWithinRange", 2))

    metrics.forget(KEY)
    metrics.forget(KEY)

    assert value(registry, "decisions_total", reason="DesiredWithinRange") is None
    assert value(registry, "decisions_total", OTHER, reason="DesiredWithinRange") == 1


GAUGES = [
    *("desired_replicas", "current_replicas", "ready_replicas", "demand"),
    *("min_replicas", "max_replicas", "active"),
]


def gauges(registry: CollectorRegistry) -> list[float | None]:
    return [value(registry, name) for name in GAUGES]


async def deploy_busy(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server with one replica, four busy slots and two queued requests."""
    await deploy(cluster, operator, slots=4, **spec)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=2)
    await operator.run_for(2)


async def test_a_decision_is_exported_with_the_range_of_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_busy(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})

    assert gauges(operator.registry) == [2, 1, 1, 6, 1, 3, 1]


async def test_the_range_follows_schedules_without_a_new_decision(
    cluster: FakeCluster, operator: Operator
) -> None:
    morning = {"cron": "0 6 * * *", "maxReplicas": 4}
    evening = {"cron": "0 18 * * *", "minReplicas": 0, "maxReplicas": 3}
    autoscaling = {"maxReplicas": 2, "schedules": [morning, evening]}
    await deploy_busy(cluster, operator, autoscaling=autoscaling)
    before = gauges(operator.registry)[4:6]

    operator.time.elapsed += 6 * 3600

    assert before == [1, 4]
    assert gauges(operator.registry)[4:6] == [0, 3]


async def test_a_server_without_autoscaling_has_no_range(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_busy(cluster, operator, replicas=1)

    assert gauges(operator.registry) == [1, 1, 1, 6, None, None, None]


async def test_autoscaling_without_reports_is_exported_as_inactive(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_busy(cluster, operator, autoscaling={"maxReplicas": 3})

    operator.balancers.reports.clear()
    await operator.run_for(30)

    assert gauges(operator.registry) == [2, 1, 1, 0, 1, 3, 0]


@pytest.mark.parametrize("change", [None, {"slots": 0}], ids=["deleted", "invalid"])
async def test_a_deleted_or_invalid_server_is_not_exported(
    cluster: FakeCluster, operator: Operator, change: dict[str, Any] | None
) -> None:
    await deploy_busy(cluster, operator, autoscaling={"maxReplicas": 3})

    if change:
        update_spec(cluster, **change)
    else:
        cluster.remove(LLAMA_SERVERS, "default", "chat")
    await operator.reconcile()

    assert gauges(operator.registry) == [None] * 7


def reported(operator: Operator, kind: str) -> float | None:
    labels = {"kind": "LlamaServer", "namespace": KEY.namespace, "name": KEY.name, "type": kind}
    return operator.registry.get_sample_value("slotkeeper_operator_condition", labels)


async def test_conditions_are_exported_until_the_server_is_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    assert (reported(operator, "Ready"), reported(operator, "Degraded")) == (1, 0)

    update_spec(cluster, slots=-1)
    await operator.reconcile()
    assert (reported(operator, "Ready"), reported(operator, "Degraded")) == (0, 1)

    cluster.remove(LLAMA_SERVERS, KEY.namespace, KEY.name)
    await operator.reconcile()
    assert reported(operator, "Ready") is None


async def test_only_the_operator_that_holds_the_lease_is_shown_as_the_leader(
    operator: Operator,
) -> None:
    def leads() -> float | None:
        return operator.registry.get_sample_value("slotkeeper_operator_leader")

    standby = leads()
    await operator.lease.try_acquire()
    leader = leads()
    operator.time.elapsed += 16

    assert (standby, leader, leads()) == (0, 1, 0)
