"""The operator's own metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from slotkeeper.reconcile.queue import Key


class Metrics:
    """What Prometheus reads of the operator."""

    def __init__(self, registry: CollectorRegistry, queue_depth: Callable[[], int]) -> None:
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
        depth = Gauge(
            "slotkeeper_operator_queue_depth",
            "Servers that are due to be looked at",
            registry=registry,
        )
        depth.set_function(queue_depth)

    def reconciled(self, key: Key, seconds: float, *, failed: bool, wanted: int | None) -> None:
        """Count one reconcile; `wanted` is None where the server is gone or invalid."""
        self._reconciles.labels("failed" if failed else "done").inc()
        self._seconds.observe(seconds)
        if wanted is not None:
            self._wanted.labels(*key).set(wanted)
        elif not failed:
            self._wanted.remove(*key)
