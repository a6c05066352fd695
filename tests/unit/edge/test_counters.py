from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from slotkeeper.edge import counters

BOUNDS = (0.005, 0.5, 1, 600)


@given(st.lists(st.sampled_from([0.0, 0.005, 0.0051, 0.5, 1, 1.5, 600, 601])))
def test_a_histogram_exposes_the_same_as_prometheus_clients_own(values: list[float]) -> None:
    ours = counters.Histogram("name", "Help.", BOUNDS)
    registry = CollectorRegistry()
    theirs = Histogram("name", "Help.", buckets=BOUNDS, registry=registry)
    for value in values:
        ours.observe(value)
        theirs.observe(value)

    assert page(ours) == [
        line
        for line in generate_latest(registry).decode().splitlines()
        if "name_created" not in line
    ]


def test_a_counter_exposes_the_number_of_increments() -> None:
    counter = counters.Counter("name", "Help.")
    counter.inc()
    counter.inc()

    assert page(counter)[-1] == "name_total 2.0"


def page(metric: counters.Counter | counters.Histogram) -> list[str]:
    class One(Collector):
        @override
        def collect(self) -> Iterator[Metric]:
            yield metric.family()

    registry = CollectorRegistry()
    registry.register(One())
    return generate_latest(registry).decode().splitlines()
