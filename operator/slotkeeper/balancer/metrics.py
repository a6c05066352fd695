"""The balancer's metrics for Prometheus."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.balancer.priming_metrics import PrimingMetrics
from slotkeeper.balancer.prompt_metrics import PromptMetrics
from slotkeeper.edge.connection_metrics import ConnectionMetrics
from slotkeeper.edge.counters import Counter, Counters, Histogram
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.usage import Tokens
from slotkeeper.llamacpp.acceptance import Guesses
from slotkeeper.scheduling import Dispatcher
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.wire.listener import Listener

_PREFIX = "slotkeeper_balancer"


class PreemptionReason(StrEnum):
    """Why a preemptible request was ended."""

    SLOT = "slot"
    """An ordinary request needed its slot."""
    QUEUE = "queue"
    """The queue was full, and an ordinary request arrived."""
    REPLICA = "replica"
    """Its replica was removed."""
    LEADER = "leader"
    """Its balancer ceased to be the leader: the next one could not preempt it."""


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms; gauges are read from the dispatcher at each scrape."""

    def __init__(self, dispatcher: Dispatcher[Any]) -> None:
        self.tokens = Tokens()
        """Of all responses."""
        self.replica_requests: dict[str, int] = {}
        """Finished requests, by the last replica that each was dispatched to."""
        self._counters: list[Counter | Counters | Histogram] = []
        self._requests: dict[tuple[Outcome, int], int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(dispatcher))
        self._registry.register(_Counters(self._requests, self._counters))
        self._registry.register(_PlainCounters(self, dispatcher))
        self.queue_duration = self._histogram(
            "queue_duration_seconds", "Time from a request's arrival until it gets a slot."
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "Time from a request's arrival to the first byte of its response's body.",
        )
        self.request_duration = self._histogram(
            "request_duration_seconds", "Time from a request's arrival to its end."
        )
        self.slot_release_duration = self._histogram(
            "slot_release_duration_seconds",
            "Time from the abort of a request until llama-server has freed its slot.",
        )
        self.prefix_cache_hits = self._counter(
            "prefix_cache_hits", "Requests dispatched to a replica whose cache has their prefix."
        )
        self.prefix_cache_misses = self._counter(
            "prefix_cache_misses",
            "Requests dispatched to a replica that does not; short prompts count in neither.",
        )
        self.retries = self._counter(
            "request_retries", "Retries of requests whose upstream failed before the response."
        )
        self.preemptions = Counters(
            f"{_PREFIX}_preempted_requests",
            "Preemptible requests that made way for others.",
            "reason",
            [reason.value for reason in PreemptionReason],
        )
        self._counters.append(self.preemptions)
        self.replica_crashes = self._counter(
            "replica_crashes",
            "Replicas that ended with requests on them, without having been deleted or drained.",
        )
        self.leader = Gauge(
            f"{_PREFIX}_leader",
            "1 if this balancer is the leader, 0 if it is a standby.",
            registry=self._registry,
        )
        self.leader.set(1)
        self.view_age = Gauge(
            f"{_PREFIX}_view_age_seconds",
            "Time since the API server last confirmed the replicas and the access rules.",
            registry=self._registry,
        )
        self.access_outdated = Gauge(
            f"{_PREFIX}_access_outdated",
            "1 while requests of clients are rejected, because API keys are required that this "
            "balancer does not have.",
            registry=self._registry,
        )
        self.relayed = self._counter("relayed_requests", "Requests relayed to the leader.")
        self.leadership_acquired = self._counter(
            "leadership_acquired", "Times that this balancer became the leader."
        )
        self.ejections = Counters(
            f"{_PREFIX}_replica_ejections",
            "Ejections of replicas that failed.",
            "reason",
            [failure.value for failure in UpstreamFailure],
        )
        self._counters.append(self.ejections)
        self.slot_release_timeouts = self._counter(
            "slot_release_timeouts",
            "Slots of aborted requests that count as free after a timeout, though llama-server has "
            "not reported them free.",
        )

    def finished(self, outcome: Outcome, status: int, replica: str = "") -> None:
        """Count a finished request.

        `status`: of the response, 0 if there was none; `replica`: the last one that it was
        dispatched to, if any.
        """
        labels = outcome, status
        self._requests[labels] = self._requests.get(labels, 0) + 1
        if replica:
            self.replica_requests[replica] = self.replica_requests.get(replica, 0) + 1

    def add_tokens(self, tokens: Tokens) -> None:
        """Add the tokens of one response."""
        prompt, cached, generated = self.tokens
        self.tokens = Tokens(
            prompt + tokens.prompt, cached + tokens.cached, generated + tokens.generated
        )

    def add_listener(self, listener: Listener) -> None:
        """Report the connections of the clients' port, and what they occupy."""
        self._registry.register(ConnectionMetrics(listener, _PREFIX))

    def add_prompts(self) -> PromptMetrics:
        """Report prompt files, and return what counts them."""
        metrics = PromptMetrics(_PREFIX)
        self._registry.register(metrics)
        return metrics

    def add_priming(self) -> PrimingMetrics:
        """Report priming, and return what counts it."""
        metrics = PrimingMetrics(_PREFIX)
        self._registry.register(metrics)
        return metrics

    def add_speculation(self, guesses: Callable[[], Guesses]) -> None:
        """Report speculative decoding."""
        self._registry.register(_Speculation(guesses))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, help_: str) -> Histogram:
        histogram = Histogram(f"{_PREFIX}_{name}", help_, _SECONDS)
        self._counters.append(histogram)
        return histogram

    def _counter(self, name: str, help_: str) -> Counter:
        counter = Counter(f"{_PREFIX}_{name}", help_)
        self._counters.append(counter)
        return counter


class _Counters(Collector):
    def __init__(
        self,
        requests: Mapping[tuple[Outcome, int], int],
        counters: Iterable[Counter | Counters | Histogram],
    ) -> None:
        self._requests = requests
        self._counters = counters

    @override
    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{_PREFIX}_requests",
            "Finished requests, by outcome and by the status code of the response.",
            labels=["outcome", "code"],
        )
        for (outcome, status), count in self._requests.items():
            requests.add_metric([outcome, str(status or "none")], count)
        yield requests
        for counter in self._counters:
            yield counter.family()


class _Speculation(Collector):
    def __init__(self, guesses: Callable[[], Guesses]) -> None:
        self._guesses = guesses

    @override
    def collect(self) -> Iterator[Metric]:
        counts = self._guesses()
        yield CounterMetricFamily(
            f"{_PREFIX}_draft_tokens",
            "Tokens that speculative decoding guessed.",
            value=counts.guessed,
        )
        yield CounterMetricFamily(
            f"{_PREFIX}_accepted_draft_tokens",
            "Those of them that were right.",
            value=counts.accepted,
        )


class _Gauges(Collector):
    def __init__(self, dispatcher: Dispatcher[Any]) -> None:
        self._dispatcher = dispatcher

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        dispatcher = self._dispatcher
        total = GaugeMetricFamily(f"{_PREFIX}_slots", "Slots.", labels=["replica"])
        busy = GaugeMetricFamily(f"{_PREFIX}_slots_busy", "Busy slots.", labels=["replica"])
        for replica in dispatcher.replicas.values():
            total.add_metric([replica.name], replica.slots if replica.ready else replica.busy)
            busy.add_metric([replica.name], replica.busy)
        yield total
        yield busy
        yield _gauge("queued_requests", "Queued requests.", dispatcher.queued)
        yield _gauge(
            "held_requests",
            "Queued requests of API keys that are at their limit of running requests.",
            dispatcher.held,
        )
        yield _gauge(
            "preemptible_slots_busy",
            "Busy slots with preemptible requests.",
            dispatcher.preemptible_busy_slots,
        )
        yield _gauge(
            "preemptible_queued_requests",
            "Queued requests that are preemptible.",
            len(dispatcher.queue.preemptible),
        )
        yield _gauge(
            "queued_bytes", "Size of the bodies of queued requests.", dispatcher.queued_bytes
        )
        yield _gauge(
            "further_tasks",
            "Slots that queued requests need beyond one each, and tasks queued inside "
            "llama-servers, of requests with several prompts or completions.",
            dispatcher.further_tasks,
        )
        blocked = GaugeMetricFamily(
            f"{_PREFIX}_start_blocked",
            "1 while there is no replica, with the reason why none can start.",
            labels=["reason"],
        )
        if dispatcher.start_blocker:
            blocked.add_metric([dispatcher.start_blocker.reason], 1)
        yield blocked
        yield _gauge("replicas", "Ready replicas.", sum(1 for _ in dispatcher.ready_replicas()))


class _PlainCounters(Collector):
    """Counts that cost more as a Counter, or that end with their replica."""

    def __init__(self, metrics: Metrics, dispatcher: Dispatcher[Any]) -> None:
        self._metrics = metrics
        self._dispatcher = dispatcher

    @override
    def collect(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            f"{_PREFIX}_tokens",
            "Tokens reported by llama-server at the end of responses, by kind: prompt (computed), "
            "cached (of prompts, found in the prefix cache), generated. Aborted responses and "
            "those without a report count none.",
            labels=["kind"],
        )
        for kind, count in self._metrics.tokens._asdict().items():
            tokens.add_metric([kind], count)
        yield tokens
        counts = self._metrics.replica_requests
        replicas = self._dispatcher.replicas
        for removed in counts.keys() - replicas.keys():
            del counts[removed]
        requests = CounterMetricFamily(
            f"{_PREFIX}_replica_requests",
            "Finished requests of current replicas, by the last replica of each.",
            labels=["replica"],
        )
        for name in replicas:
            requests.add_metric([name], counts.get(name, 0))
        yield requests


def _gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", help_, value=value)
