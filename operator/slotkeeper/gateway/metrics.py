"""The gateway's metrics for Prometheus."""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.api.model_state import ModelState
from slotkeeper.edge.connection_metrics import ConnectionMetrics
from slotkeeper.edge.counters import LabeledCounter, LabeledHistogram
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.gateway.backends.registry import Backends
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.shadow import Pair, Result
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.wire.listener import Listener

_PREFIX = "slotkeeper_gateway"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
NO_MODEL = ""
"""Label of requests that were rejected before their model was found."""


class Metrics(Collector):
    """Counters and histograms by model; gauges are read at each scrape.

    `models` returns the current models. The series of others are dropped, or they would accumulate.
    `running` returns the model's name of each request in progress.
    """

    def __init__(
        self,
        models: Callable[[], Collection[Model]],
        running: Callable[[], Iterator[str]],
        backends: Backends,
    ) -> None:
        self._models = models
        self._backends = backends
        self._running = running
        self._requests = LabeledCounter(
            f"{_PREFIX}_requests",
            "Finished requests, by model, API key, outcome and status code of the response.",
            ["model", "key", "outcome", "code"],
        )
        self._rejected = LabeledCounter(
            f"{_PREFIX}_rejected_requests",
            "Requests that the gateway rejected, by error code, or by the exceeded limit of an API "
            "key.",
            ["reason"],
        )
        self._tokens = LabeledCounter(
            f"{_PREFIX}_tokens",
            "Tokens reported at the end of responses, by model, API key and kind: prompt "
            "(computed), cached (of prompts, found in the prefix cache), generated. Aborted "
            "responses and those without a report count none.",
            ["model", "key", "kind"],
        )
        self._duration = LabeledHistogram(
            f"{_PREFIX}_request_duration_seconds",
            "Time from a request's arrival to its end.",
            "model",
            _SECONDS,
        )
        self._first_byte = LabeledHistogram(
            f"{_PREFIX}_time_to_first_byte_seconds",
            "Time from a request's arrival to the first byte of its response's body.",
            "model",
            _SECONDS,
        )
        self._retries = LabeledCounter(
            f"{_PREFIX}_request_retries",
            "Requests that were sent again because their connection failed before they were read.",
            ["model"],
        )
        self._fallbacks = LabeledCounter(
            f"{_PREFIX}_fallbacks",
            "Requests that were sent to another model, by the model in whose place, and by reason.",
            ["model", "to", "reason"],
        )
        self._shadow_requests = LabeledCounter(
            f"{_PREFIX}_shadow_requests",
            "Requests of which a copy for another model was due, by result.",
            ["model", "to", "result"],
        )
        self._shadow_responses = LabeledCounter(
            f"{_PREFIX}_shadow_responses",
            "Compared requests, by side (original or shadow) and status code.",
            ["model", "to", "side", "code"],
        )
        self._shadow_seconds = LabeledCounter(
            f"{_PREFIX}_shadow_duration_seconds",
            "Sum of the durations of compared requests, by side.",
            ["model", "to", "side"],
        )
        self._shadow_tokens = LabeledCounter(
            f"{_PREFIX}_shadow_tokens",
            "Tokens generated for compared requests, by side.",
            ["model", "to", "side"],
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def finished(
        self, model: str, key: str | None, outcome: Outcome, status: int, seconds: float
    ) -> None:
        """Count a forwarded request; `status`: of the response, 0 if there was none."""
        self._requests.add(1, model, key or "", outcome, str(status or "none"))
        self._duration.observe(seconds, model)

    def first_byte(self, model: str, seconds: float) -> None:
        """Record the time to the first byte of a response's body."""
        self._first_byte.observe(seconds, model)

    def rejected(self, reason: str, key: str | None, status: int) -> None:
        """Count a request that was rejected without being forwarded."""
        self._rejected.add(1, reason)
        self._requests.add(1, NO_MODEL, key or "", Outcome.REJECTED, str(status))

    def retried(self, model: str) -> None:
        """Count a retry."""
        self._retries.add(1, model)

    def fell_back(self, model: str, to: str, reason: Trigger) -> None:
        """Count a fallback from one model to another."""
        self._fallbacks.add(1, model, to, reason)

    def shadowed(self, model: str, to: str, result: Result, pair: Pair | None) -> None:
        """Count a copy that was due, and compare it with the original if both are in `pair`."""
        self._shadow_requests.add(1, model, to, result)
        for side, measured in (pair.measured if pair else {}).items():
            self._shadow_responses.add(1, model, to, side, str(measured.code or "none"))
            self._shadow_seconds.add(measured.seconds, model, to, side)
            self._shadow_tokens.add(measured.tokens, model, to, side)

    def add_tokens(self, model: str, key: str | None, tokens: Tokens) -> None:
        """Add the tokens of one response."""
        for kind, count in tokens._asdict().items():
            self._tokens.add(count, model, key or "", kind)

    def add_listener(self, listener: Listener) -> None:
        """Report the connections of the clients' port, and what they occupy."""
        self._registry.register(ConnectionMetrics(listener, _PREFIX))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    @override
    def collect(self) -> Iterator[Metric]:
        models = self._models()
        names = {NO_MODEL, *(model.name for model in models), *self._backends.models}
        for labeled in (
            self._requests,
            self._tokens,
            self._retries,
            self._fallbacks,
            self._shadow_requests,
            self._shadow_responses,
            self._shadow_seconds,
            self._shadow_tokens,
            self._duration,
            self._first_byte,
        ):
            labeled.keep(lambda labels: labels[0] in names)
            yield labeled.family()
        yield self._rejected.family()
        running = GaugeMetricFamily(
            f"{_PREFIX}_running_requests", "Requests in progress.", labels=["model"]
        )
        for name, count in Counts(self._running()).items():
            running.add_metric([name], count)
        yield running
        states = GaugeMetricFamily(f"{_PREFIX}_models", "Models, by state.", labels=["state"])
        found = Counts(model.state for model in models)
        for state in get_args(ModelState):
            states.add_metric([state], found[state])
        yield states
        yield from self._backends.metrics(_PREFIX)
