"""The operator's own metrics."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot
from slotkeeper.reconcile.write.conflicts import FieldConflicts

Decisions = Callable[[], Iterable[tuple[Key, ScalingSnapshot | None]]]
"""What was last decided on each server. It is asked for by another thread, for each scrape."""

PREFIX = "slotkeeper_autoscaler"


class Metrics:
    """What Prometheus reads of the operator."""

    def __init__(self, registry: CollectorRegistry, queue_depth: Callable[[], int]) -> None:
        self._registry = registry
        self._reconciles = Counter(
            "slotkeeper_operator_reconcile",
            "Reconciles, by how they ended: success or error",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "slotkeeper_operator_reconcile_duration_seconds",
            "How long a reconcile took",
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
            registry=registry,
        )
        self._decisions = Counter(
            f"{PREFIX}_decisions",
            "Decisions on a server's replicas that differ from the one before, by reason",
            ["namespace", "name", "reason"],
            registry=registry,
        )
        self._last: dict[Key, ScalingSnapshot] = {}
        depth = Gauge(
            "slotkeeper_operator_workqueue_depth",
            "Servers that are due to be looked at",
            registry=registry,
        )
        depth.set_function(queue_depth)

    def register(self, fights: FieldConflicts, decisions: Decisions) -> None:
        """Show what others do to the children of servers, and what is decided on their replicas."""
        self._registry.register(_Drift(fights))
        self._registry.register(_Scaling(decisions))

    def count_reconcile(self, seconds: float, *, failed: bool) -> None:
        """Count one reconcile."""
        self._reconciles.labels("error" if failed else "success").inc()
        self._seconds.observe(seconds)

    def count_decision(self, key: Key, decided: ScalingSnapshot | None) -> None:
        """Count what was decided last; None where the server is gone or invalid."""
        before = self._last.pop(key, None)
        if decided is None:
            if before:
                self._decisions.remove_by_labels({"namespace": key.namespace, "name": key.name})
            return
        self._last[key] = decided
        if before is None or (before.replicas, before.reason) != (decided.replicas, decided.reason):
            self._decisions.labels(*key, decided.reason).inc()


@dataclass(frozen=True)
class _Drift(Collector):
    fights: FieldConflicts

    @override
    def collect(self) -> Iterator[Metric]:
        put_right = CounterMetricFamily(
            "slotkeeper_operator_drift_corrections",
            "Children that others had changed or deleted and that were put right, by kind",
            labels=["kind"],
        )
        for kind, times in self.fights.corrections.items():
            put_right.add_metric([kind], times)
        yield put_right
        yield GaugeMetricFamily(
            "slotkeeper_operator_field_conflicts",
            "Children that somebody else changes again and again",
            value=len(self.fights),
        )


@dataclass(frozen=True)
class _Scaling(Collector):
    """Read for each scrape: bounds change with the time of day, and whoever is gone has none."""

    decisions: Decisions

    @override
    def collect(self) -> Iterator[Metric]:
        wanted = _gauge("desired_replicas", "Replicas that a server was last found to need")
        current = _gauge("current_replicas", "Replicas that a server has, ready or not")
        ready = _gauge("ready_replicas", "Replicas of a server that serve")
        demand = _gauge("demand", "Busy slots and waiting requests of a server")
        least = _gauge("min_replicas", "The fewest replicas that a server may have now")
        most = _gauge("max_replicas", "The most replicas that a server may have now")
        active = _gauge("active", "Whether demand says how many replicas a server has")
        for key, decided in self.decisions():
            if decided is None:
                continue
            wanted.add_metric(key, decided.replicas)
            current.add_metric(key, decided.current)
            ready.add_metric(key, decided.ready)
            demand.add_metric(key, decided.demand)
            if bounds := decided.bounds:
                least.add_metric(key, bounds.minimum)
                most.add_metric(key, bounds.maximum)
                active.add_metric(key, bounds.active)
        yield from (wanted, current, ready, demand, least, most, active)


def _gauge(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=["namespace", "name"])
