"""Metrics of a listening address: its connections, and the memory that clients occupy."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.wire.listener import Listener


class ConnectionMetrics(Collector):
    """Reads a listener at each scrape; `prefix` begins the names of the metrics."""

    def __init__(self, listener: Listener, prefix: str) -> None:
        self._listener = listener
        self._prefix = prefix

    @override
    def collect(self) -> Iterator[Metric]:
        connections = self._listener.connections
        limits = self._listener.limits
        yield self._gauge("connections", "Open connections of clients.", len(connections))
        yield self._gauge("max_connections", "Maximum of these.", limits.max_connections)
        yield self._gauge(
            "buffered_bytes",
            "Memory that requests, and responses that clients do not read, occupy.",
            self._listener.budget.buffered,
        )
        yield self._gauge("max_buffered_bytes", "Maximum of these.", limits.max_buffered)
        closed = CounterMetricFamily(
            f"{self._prefix}_connections_closed",
            "Connections without a request in progress that were closed at a limit, by reason.",
            labels=["reason"],
        )
        for reason, count in connections.closed.items():
            closed.add_metric([reason], count)
        yield closed

    def _gauge(self, name: str, help_: str, value: float) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{self._prefix}_{name}", help_, value=value)
