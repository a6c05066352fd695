"""Metrics of priming."""

from collections.abc import Iterator
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.edge.counters import Counters


class Abort(StrEnum):
    """Why a replica got requests before all beginnings were computed."""

    REQUEST = "request"
    """A request was queued."""
    TIMEOUT = "timeout"
    """It took longer than maxSeconds."""
    FAILED = "failed"
    """llama-server responded with an error, or its connection broke."""


class PrimingMetrics(Collector):
    """Counters; `prefix` begins their names."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.prompts = self.tokens = 0
        self.seconds = 0.0
        self.aborts = Counters(
            f"{prefix}_priming_aborted",
            "Replicas that got requests before all beginnings of prompts were computed.",
            "reason",
            list(Abort),
        )

    @override
    def collect(self) -> Iterator[Metric]:
        for name, text, value in (
            ("primed_prompts", "Beginnings of prompts that new replicas computed.", self.prompts),
            (
                "primed_tokens",
                "Tokens that new replicas computed for them, without aborted parts.",
                self.tokens,
            ),
            ("priming_seconds", "Time for which new replicas computed them.", self.seconds),
        ):
            yield CounterMetricFamily(f"{self._prefix}_{name}", text, value=value)
        yield self.aborts.family()
