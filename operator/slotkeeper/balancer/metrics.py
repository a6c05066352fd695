"""The balancer's numbers for Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.balancer.outcome import Outcome
from slotkeeper.edge.counters import Counter, Counters, Histogram
from slotkeeper.edge.usage import Tokens
from slotkeeper.scheduling import Dispatcher
from slotkeeper.scheduling.ejection import UpstreamFailure

_PREFIX = "slotkeeper_balancer"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms; gauges are read from the dispatcher when they are asked for."""

    def __init__(self, dispatcher: Dispatcher[Any]) -> None:
        self.tokens = Tokens()
        """Of all answers."""
        self.replica_requests: dict[str, int] = {}
        """Requests that are over, by the replica that had them last."""
        self._tallies: list[Counter | Counters | Histogram] = []
        self._ends: dict[tuple[Outcome, int], int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(dispatcher))
        self._registry.register(_Tallied(self._ends, self._tallies))
        self._registry.register(_Counts(self, dispatcher))
        self.queue_duration = self._histogram("queue_duration_seconds", "From arrival to a slot.")
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to the answer's first byte after its head."
        )
        self.request_duration = self._histogram(
            "request_duration_seconds", "From arrival to the end."
        )
        self.slot_release_duration = self._histogram(
            "slot_release_duration_seconds", "From a request's abort until its slot was free again."
        )
        self.prefix_cache_hits = self._counter(
            "prefix_cache_hits",
            "Requests on a replica whose cache knew the beginning of their prompt.",
        )
        self.prefix_cache_misses = self._counter(
            "prefix_cache_misses",
            "Requests on a replica that did not; short prompts are in neither.",
        )
        self.retries = self._counter(
            "request_retries", "Requests tried again before their first byte."
        )
        self.leader = Gauge(
            f"{_PREFIX}_leader",
            "1 where this balancer hands out the slots, 0 where it stands by.",
            registry=self._registry,
        )
        self.leader.set(1)
        self.relayed = self._counter(
            "relayed_requests", "Requests passed on to the balancer that hands out the slots."
        )
        self.leadership_acquired = self._counter(
            "leadership_acquired", "Times that this balancer began to hand out the slots."
        )
        self.ejections = Counters(
            f"{_PREFIX}_replica_ejections",
            "Replicas that failed, by how.",
            "reason",
            [fault.value for fault in UpstreamFailure],
        )
        self._tallies.append(self.ejections)
        self.slot_release_timeouts = self._counter(
            "slot_release_timeouts", "Slots taken for free though llama-server did not say so."
        )

    def finished(self, outcome: Outcome, status: int, replica: str = "") -> None:
        """A request is over: how, with which status (0: the client got none), and on which replica.

        A refused one was on none.
        """
        end = outcome, status
        self._ends[end] = self._ends.get(end, 0) + 1
        if replica:
            self.replica_requests[replica] = self.replica_requests.get(replica, 0) + 1

    def add_tokens(self, tokens: Tokens) -> None:
        """An answer took so many tokens."""
        prompt, cached, generated = self.tokens
        self.tokens = Tokens(
            prompt + tokens.prompt, cached + tokens.cached, generated + tokens.generated
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, about: str) -> Histogram:
        histogram = Histogram(f"{_PREFIX}_{name}", about, _SECONDS)
        self._tallies.append(histogram)
        return histogram

    def _counter(self, name: str, about: str) -> Counter:
        counter = Counter(f"{_PREFIX}_{name}", about)
        self._tallies.append(counter)
        return counter


class _Tallied(Collector):
    def __init__(
        self,
        ends: Mapping[tuple[Outcome, int], int],
        tallies: Iterable[Counter | Counters | Histogram],
    ) -> None:
        self._ends = ends
        self._tallies = tallies

    @override
    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{_PREFIX}_requests",
            "Requests that are over, by how they ended and the status that the client got.",
            labels=["outcome", "code"],
        )
        for (outcome, status), count in self._ends.items():
            requests.add_metric([outcome, str(status or "none")], count)
        yield requests
        for tally in self._tallies:
            yield tally.family()


class _Gauges(Collector):
    def __init__(self, dispatcher: Dispatcher[Any]) -> None:
        self._dispatcher = dispatcher

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        dispatcher = self._dispatcher
        total = GaugeMetricFamily(f"{_PREFIX}_slots", "Slots.", labels=["replica"])
        busy = GaugeMetricFamily(f"{_PREFIX}_slots_busy", "Slots held.", labels=["replica"])
        for replica in dispatcher.replicas.values():
            total.add_metric([replica.name], replica.slots if replica.ready else replica.busy)
            busy.add_metric([replica.name], replica.busy)
        yield total
        yield busy
        yield _gauge("queued_requests", "Requests without a slot.", dispatcher.queued)
        yield _gauge("queued_bytes", "Bodies of waiting requests.", dispatcher.queued_bytes)
        obstacle = GaugeMetricFamily(
            f"{_PREFIX}_start_blocked",
            "1 while there is no replica, for what keeps them from starting.",
            labels=["reason"],
        )
        if dispatcher.start_blocker:
            obstacle.add_metric([dispatcher.start_blocker.reason], 1)
        yield obstacle
        yield _gauge(
            "replicas", "Replicas that take requests.", sum(1 for _ in dispatcher.ready_replicas())
        )


class _Counts(Collector):
    """Numbers that are dearer as Counters, or that must go when their replica does."""

    def __init__(self, metrics: Metrics, dispatcher: Dispatcher[Any]) -> None:
        self._metrics = metrics
        self._dispatcher = dispatcher

    @override
    def collect(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            f"{_PREFIX}_tokens",
            "Tokens as llama-server says at the end of answers. prompt: of prompts, computed; "
            "cached: of prompts, found in the cache; generated: of answers. Answers that were cut "
            "or say nothing count none.",
            labels=["kind"],
        )
        for kind, count in self._metrics.tokens._asdict().items():
            tokens.add_metric([kind], count)
        yield tokens
        served = self._metrics.replica_requests
        there = self._dispatcher.replicas
        for gone in served.keys() - there.keys():
            del served[gone]
        requests = CounterMetricFamily(
            f"{_PREFIX}_replica_requests",
            "Requests that are over, by the replica that had them last, of those that there are.",
            labels=["replica"],
        )
        for name in there:
            requests.add_metric([name], served.get(name, 0))
        yield requests


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", about, value=value)
