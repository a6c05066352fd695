"""The metrics of files and batches for Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.batches.records import BatchStatus
from slotkeeper.batches.verdict import Verdict
from slotkeeper.edge.counters import Counter, Counters

_PREFIX = "slotkeeper_batches"


class Metrics(Collector):
    """Counters, and gauges that are read at each scrape."""

    def __init__(self) -> None:
        self.running: Callable[[], int] = lambda: 0
        """Returns the requests in progress."""
        self.statuses: Mapping[str, int] = {}
        """Batches by status."""
        self.stored_bytes = 0
        """Of files and results."""
        self.free_bytes = 0
        """Of the volume."""
        self._attempts = Counters(
            f"{_PREFIX}_attempts",
            "Requests of batches that were sent, by what followed: succeeded, rejected (an error "
            "that is the result), preempted or throttled (sent again), failed (sent again up to 4 "
            "times).",
            "outcome",
            Verdict,
        )
        self._results = Counters(
            f"{_PREFIX}_results",
            "Results that were written, by file: output or error.",
            "file",
            ("output", "error"),
        )
        self._write_failures = Counter(
            f"{_PREFIX}_write_failures",
            "Failed writes of results, for example because the volume is full. Batches pause for "
            "ten seconds after each.",
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def attempt(self, verdict: Verdict) -> None:
        """Count a request that was sent."""
        self._attempts.inc(verdict)

    def results(self, output: int, errors: int) -> None:
        """Count results that were written."""
        for file, count in (("output", output), ("error", errors)):
            self._results.add(file, count)

    def write_failed(self) -> None:
        """Count a failed write."""
        self._write_failures.inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    @override
    def collect(self) -> Iterator[Metric]:
        yield self._attempts.family()
        yield self._results.family()
        yield self._write_failures.family()
        batches = GaugeMetricFamily(
            f"{_PREFIX}_batches", "Batches that are stored, by status.", labels=["status"]
        )
        for status in get_args(BatchStatus):
            batches.add_metric([status], self.statuses.get(status, 0))
        yield batches
        for name, text, value in (
            ("running_requests", "Requests of batches in progress.", self.running()),
            ("stored_bytes", "Bytes of files and results.", self.stored_bytes),
            ("free_bytes", "Free bytes of the volume.", self.free_bytes),
        ):
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
