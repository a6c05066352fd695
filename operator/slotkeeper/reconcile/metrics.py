"""The operator's Prometheus metrics."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.downloads.tracker import DownloadSample
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot

Snapshots = Callable[[], Iterable[tuple[Key, ScalingSnapshot | None]]]
"""The last decision on each server's replicas. Called from another thread at each scrape."""

PREFIX = "slotkeeper_autoscaler"
DOWNLOAD_PREFIX = "slotkeeper_operator_model_download"


class Metrics:
    """Counters of the operator, and gauges that are read at each scrape."""

    def __init__(self, registry: CollectorRegistry, queue_depth: Callable[[], int]) -> None:
        self._registry = registry
        self._reconciles = Counter(
            "slotkeeper_operator_reconcile",
            "Reconcile passes by result: success or error",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "slotkeeper_operator_reconcile_duration_seconds",
            "Duration of a reconcile pass",
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
            registry=registry,
        )
        self._decisions = Counter(
            f"{PREFIX}_decisions",
            "Changes of the decision on a server's replicas, by the new decision's reason",
            ["namespace", "name", "reason"],
            registry=registry,
        )
        self._corrections = Counter(
            "slotkeeper_operator_drift_corrections",
            "Children that others had changed or deleted and that were corrected, by kind",
            ["kind"],
            registry=registry,
        )
        self._suppressed_errors = Counter(
            "slotkeeper_operator_suppressed_errors",
            "Unexpected errors that concern one resource or object, outside of its passes, by part",
            ["part"],
            registry=registry,
        )
        self._conditions = Gauge(
            "slotkeeper_operator_condition",
            "Conditions of a LlamaServer or LlamaGateway, by type: 1 if it is True, otherwise 0",
            ["kind", "namespace", "name", "type"],
            registry=registry,
        )
        depth = Gauge(
            "slotkeeper_operator_workqueue_depth",
            "Servers and gateways that are due for a reconcile pass",
            registry=registry,
        )
        depth.set_function(queue_depth)

    def register(
        self,
        *,
        conflicts: Callable[[], int],
        snapshots: Snapshots,
        unreadable: Callable[[], Mapping[str, int]],
        leads: Callable[[], bool],
        budget_waits: Callable[[], Iterable[tuple[Key, float]]],
        prefetches: Callable[[], Mapping[str, int]],
    ) -> None:
        """Export what is read at each scrape: field conflicts, scaling decisions, unreadable
        objects by kind, whether this operator is the leader, and for how many seconds servers have
        waited for room in the budget of their gateway, and prefetch Jobs by phase."""
        leader = Gauge(
            "slotkeeper_operator_leader",
            "1 for the operator that leads, 0 for a standby",
            registry=self._registry,
        )
        leader.set_function(leads)
        repeated = Gauge(
            "slotkeeper_operator_field_conflicts",
            "Children that another field manager repeatedly changes",
            registry=self._registry,
        )
        repeated.set_function(conflicts)
        self._registry.register(_Scaling(snapshots))
        self._registry.register(_Unreadable(unreadable))
        self._registry.register(_BudgetWaits(budget_waits))
        self._registry.register(_Prefetches(prefetches))

    def register_downloads(
        self, samples: Callable[[], Iterable[tuple[Key, DownloadSample]]]
    ) -> None:
        """Export the progress of downloads, which is read at each scrape."""
        self._registry.register(_Downloads(samples))

    def register_accelerators(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Export the numbers of servers whose accelerators are not used, by reason."""
        self._registry.register(_Accelerators(counts))

    def count_reconcile(self, seconds: float, *, failed: bool) -> None:
        """Count one pass."""
        self._reconciles.labels("error" if failed else "success").inc()
        self._seconds.observe(seconds)

    def count_correction(self, kind: str) -> None:
        """Count a child of this kind whose drift was corrected."""
        self._corrections.labels(kind).inc()

    def set_conditions(self, kind: str, key: Key, conditions: Iterable[Mapping[str, str]]) -> None:
        """Export the reported conditions of a resource; without conditions, drop their series."""
        found = list(conditions)
        for each in found:
            self._conditions.labels(kind, *key, each["type"]).set(each["status"] == "True")
        if not found:
            labels = {"kind": kind, "namespace": key.namespace, "name": key.name}
            self._conditions.remove_by_labels(labels)

    def count_suppressed_error(self, part: str) -> None:
        """Count an unexpected error that was suppressed in a part of the operator."""
        self._suppressed_errors.labels(part).inc()

    def count_decision(
        self, key: Key, before: ScalingSnapshot | None, now: ScalingSnapshot | None
    ) -> None:
        """Count a decision that differs from the one before."""
        if now and (
            before is None or (before.replicas, before.reason) != (now.replicas, now.reason)
        ):
            self._decisions.labels(*key, now.reason).inc()

    def forget(self, key: Key) -> None:
        """Drop the series of a server that does not exist any more, or is not valid."""
        self._decisions.remove_by_labels({"namespace": key.namespace, "name": key.name})


@dataclass(frozen=True)
class _Scaling(Collector):
    """Collected at each scrape: bounds change with the time of day, and deleted servers have no
    series."""

    snapshots: Snapshots

    @override
    def collect(self) -> Iterator[Metric]:
        desired = _gauge("desired_replicas", "Replicas that a server should have")
        current = _gauge("current_replicas", "Replicas that a server has, ready or not")
        ready = _gauge("ready_replicas", "Ready replicas of a server")
        demand = _gauge("demand", "Busy slots and queued requests of a server")
        minimum = _gauge("min_replicas", "Minimum number of replicas of a server now")
        maximum = _gauge("max_replicas", "Maximum number of replicas of a server now")
        active = _gauge("active", "Whether demand sets the number of replicas of a server")
        for key, snapshot in self.snapshots():
            if snapshot is None:
                continue
            desired.add_metric(key, snapshot.replicas)
            current.add_metric(key, snapshot.current)
            ready.add_metric(key, snapshot.ready)
            demand.add_metric(key, snapshot.demand)
            if bounds := snapshot.bounds:
                minimum.add_metric(key, bounds.minimum)
                maximum.add_metric(key, bounds.maximum)
                active.add_metric(key, bounds.active)
        yield from (desired, current, ready, demand, minimum, maximum, active)


@dataclass(frozen=True)
class _BudgetWaits(Collector):
    """A server has a series only while it waits."""

    waits: Callable[[], Iterable[tuple[Key, float]]]

    @override
    def collect(self) -> Iterator[Metric]:
        family = _gauge(
            "budget_wait_seconds",
            "Time for which a server without a replica has waited for room in its gateway's budget",
        )
        for key, seconds in self.waits():
            family.add_metric(key, seconds)
        yield family


@dataclass(frozen=True)
class _Downloads(Collector):
    """A server has series only while one of its pods downloads the model."""

    downloads: Callable[[], Iterable[tuple[Key, DownloadSample]]]

    @override
    def collect(self) -> Iterator[Metric]:
        size = _gauge("bytes", "Size of the files that a server downloads", DOWNLOAD_PREFIX)
        downloaded = _gauge("received_bytes", "Bytes of them that are downloaded", DOWNLOAD_PREFIX)
        stalled = _gauge(
            "stalled_seconds",
            "Time for which no download of a server has made progress",
            DOWNLOAD_PREFIX,
        )
        for key, sample in self.downloads():
            if sample.total_bytes is not None:
                size.add_metric(key, sample.total_bytes)
            downloaded.add_metric(key, sample.downloaded_bytes)
            stalled.add_metric(key, sample.stalled_seconds)
        yield from (size, downloaded, stalled)


@dataclass(frozen=True)
class _Prefetches(Collector):
    """Jobs by phase."""

    counts: Callable[[], Mapping[str, int]]

    @override
    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily(
            "slotkeeper_operator_prefetch_jobs",
            "Jobs that download the model of a server before its first request, by phase: Running, "
            "Succeeded or Failed",
            labels=["phase"],
        )
        for phase, count in self.counts().items():
            jobs.add_metric([phase], count)
        yield jobs


@dataclass(frozen=True)
class _Accelerators(Collector):
    """Servers by reason."""

    counts: Callable[[], Mapping[str, int]]

    @override
    def collect(self) -> Iterator[Metric]:
        servers = GaugeMetricFamily(
            "slotkeeper_operator_accelerator_problems",
            "LlamaServers whose condition AcceleratorReady is False, by its reason",
            labels=["reason"],
        )
        for reason, count in self.counts().items():
            servers.add_metric([reason], count)
        yield servers


@dataclass(frozen=True)
class _Unreadable(Collector):
    """Objects by kind."""

    counts: Callable[[], Mapping[str, int]]

    @override
    def collect(self) -> Iterator[Metric]:
        objects = GaugeMetricFamily(
            "slotkeeper_operator_unreadable_objects",
            "Objects that are too large or nested too deeply to be read, by kind",
            labels=["kind"],
        )
        for kind, count in self.counts().items():
            objects.add_metric([kind], count)
        yield objects


def _gauge(name: str, help_: str, prefix: str = PREFIX) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{prefix}_{name}", help_, labels=["namespace", "name"])
