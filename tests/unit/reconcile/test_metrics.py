"""What Prometheus reads of decisions."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, change_spec, numbers, roll_out, stored
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


def test_a_server_that_is_gone_leaves_no_series(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
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


def shown(registry: CollectorRegistry) -> list[float | None]:
    return [value(registry, name) for name in GAUGES]


async def served(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server with one replica, of which the balancer tells that six requests are there."""
    stored(cluster, slots=4, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=2)
    await operator.pass_time(2)


async def test_what_is_decided_is_shown_with_its_bounds(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})

    assert shown(operator.registry) == [2, 1, 1, 6, 1, 3, 1]


async def test_bounds_are_those_of_the_hour_though_nothing_is_decided(
    cluster: FakeCluster, operator: Operator
) -> None:
    morning = {"cron": "0 6 * * *", "maxReplicas": 4}
    evening = {"cron": "0 18 * * *", "minReplicas": 0, "maxReplicas": 3}
    await served(cluster, operator, autoscaling={"maxReplicas": 2, "schedules": [morning, evening]})
    before = shown(operator.registry)[4:6]

    operator.time.passed += 6 * 3600

    assert before == [1, 4]
    assert shown(operator.registry)[4:6] == [0, 3]


async def test_a_server_that_is_not_scaled_has_no_bounds(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator, replicas=1)

    assert shown(operator.registry) == [1, 1, 1, 6, None, None, None]


async def test_demand_that_nobody_tells_is_shown_as_inactive(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator, autoscaling={"maxReplicas": 3})

    operator.balancers.says.clear()
    await operator.pass_time(30)

    assert shown(operator.registry) == [2, 1, 1, 0, 1, 3, 0]


@pytest.mark.parametrize("spec", [None, {"slots": 0}])
async def test_a_server_that_is_gone_or_invalid_is_not_shown(
    cluster: FakeCluster,
    operator: Operator,
    spec: dict[str, int] | None,
) -> None:
    await served(cluster, operator, autoscaling={"maxReplicas": 3})

    if spec:
        change_spec(cluster, lambda found: found.update(spec))
    else:
        cluster.remove(LLAMA_SERVERS, "default", "chat")
    await operator.reconcile()

    assert shown(operator.registry) == [None] * 7
