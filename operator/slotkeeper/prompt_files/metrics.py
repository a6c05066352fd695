"""The Prometheus metrics of a prompt-files agent."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.edge.counters import Counter, Counters
from slotkeeper.prompt_files.folder import Listing, Removals
from slotkeeper.prompt_files.policy import Reason

_PREFIX = "slotkeeper_prompt_files"


class Metrics(Collector):
    """Counters, and gauges as of the last listing."""

    def __init__(self, limit_bytes: int) -> None:
        self._listing = Listing((), 0, 0)
        self._limit_bytes = limit_bytes
        self._removed = Counters(
            f"{_PREFIX}_removed", "Files that were removed, by reason.", "reason", Reason
        )
        self._errors = Counter(f"{_PREFIX}_errors", "Errors of the disk.")
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def set_listing(self, listing: Listing) -> None:
        """Set what the folder contains."""
        self._listing = listing

    def count_removals(self, removals: Removals) -> None:
        """Count what an operation has removed, and what it could not."""
        for reason, count in removals.counts.items():
            self._removed.add(reason, count)
        for _ in range(removals.failures):
            self._errors.inc()

    def count_removed(self, reason: Reason) -> None:
        """Count one file that was removed."""
        self._removed.inc(reason)

    def count_error(self) -> None:
        """Count an error, after which work continues."""
        self._errors.inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    @override
    def collect(self) -> Iterator[Metric]:
        listing = self._listing
        for name, text, value in (
            ("files", "Files of the identity that can be restored.", len(listing.files)),
            ("bytes", "Bytes of all files of the folder.", listing.used_bytes),
            ("limit_bytes", "Limit of all files of the folder.", self._limit_bytes),
            ("disk_free_bytes", "Free bytes of the file system.", listing.free_bytes),
        ):
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
        yield self._removed.family()
        yield self._errors.family()
