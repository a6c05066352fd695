"""What Prometheus reads of decisions."""

import pytest
from prometheus_client import CollectorRegistry

from operating import KEY
from slotkeeper.reconcile.metrics import Decided, Metrics
from slotkeeper.reconcile.queue import Key

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
    for replicas, reason, demand in (
        (1, "Steady", 2),
        (1, "Steady", 3),
        (2, "Demand", 4),
        (3, "Demand", 9),
        (3, "Steady", 9),
    ):
        metrics.decided(KEY, Decided(replicas, reason, demand))

    assert value(registry, "decisions_total", reason="Steady") == 2
    assert value(registry, "decisions_total", reason="Demand") == 2
    assert value(registry, "wanted_replicas") == 3
    assert value(registry, "demand") == 9


def test_a_server_that_is_gone_leaves_no_series(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.decided(KEY, Decided(1, "Steady", 2))
    metrics.decided(OTHER, Decided(1, "Steady", 2))

    metrics.decided(KEY, None)
    metrics.decided(KEY, None)

    assert value(registry, "decisions_total", reason="Steady") is None
    assert value(registry, "wanted_replicas") is None
    assert value(registry, "demand") is None
    assert value(registry, "demand", OTHER) == 2
