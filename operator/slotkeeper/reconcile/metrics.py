"""The operator's own metrics."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.reconcile.fights import Fights
from slotkeeper.reconcile.queue import Key


@dataclass(frozen=True)
class Decided:
    """What there is to show of a decision on a server's replicas."""

    replicas: int
    reason: str
    demand: int
    """0 where the balancer has said nothing."""


class Metrics:
    """What Prometheus reads of the operator."""

    def __init__(self, registry: CollectorRegistry, queue_depth: Callable[[], int]) -> None:
        self._registry = registry
        self._reconciles = Counter(
            "slotkeeper_operator_reconciles",
            "Reconciles, by how they ended: done or failed",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "slotkeeper_operator_reconcile_seconds",
            "How long a reconcile took",
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
            registry=registry,
        )
        self._wanted = Gauge(
            "slotkeeper_autoscaler_wanted_replicas",
            "Replicas that a server was last found to need",
            ["namespace", "name"],
            registry=registry,
        )
        self._demand = Gauge(
            "slotkeeper_autoscaler_demand",
            "Busy slots and waiting requests of a server",
            ["namespace", "name"],
            registry=registry,
        )
        self._decisions = Counter(
            "slotkeeper_autoscaler_decisions",
            "Decisions on a server's replicas that differ from the one before, by reason",
            ["namespace", "name", "reason"],
            registry=registry,
        )
        self._last: dict[Key, Decided] = {}
        depth = Gauge(
            "slotkeeper_operator_queue_depth",
            "Servers that are due to be looked at",
            registry=registry,
        )
        depth.set_function(queue_depth)

    def show(self, fights: Fights) -> None:
        """Show what others do to the children of servers."""
        self._registry.register(_Drift(fights))

    def reconciled(self, seconds: float, *, failed: bool) -> None:
        """Count one reconcile."""
        self._reconciles.labels("failed" if failed else "done").inc()
        self._seconds.observe(seconds)

    def decided(self, key: Key, decided: Decided | None) -> None:
        """Show what was decided last; None where the server is gone or invalid."""
        before = self._last.pop(key, None)
        if decided is None:
            if before:
                self._wanted.remove(*key)
                self._demand.remove(*key)
                self._decisions.remove_by_labels({"namespace": key.namespace, "name": key.name})
            return
        self._last[key] = decided
        self._wanted.labels(*key).set(decided.replicas)
        self._demand.labels(*key).set(decided.demand)
        if before is None or (before.replicas, before.reason) != (decided.replicas, decided.reason):
            self._decisions.labels(*key, decided.reason).inc()


@dataclass(frozen=True)
class _Drift(Collector):
    fights: Fights

    @override
    def collect(self) -> Iterator[Metric]:
        put_right = CounterMetricFamily(
            "slotkeeper_operator_drift_put_right",
            "Children that others had changed or deleted and that were put right, by kind",
            labels=["kind"],
        )
        for kind, times in self.fights.put_right.items():
            put_right.add_metric([kind], times)
        yield put_right
        yield GaugeMetricFamily(
            "slotkeeper_operator_fights",
            "Children that somebody else changes again and again",
            value=len(self.fights),
        )
