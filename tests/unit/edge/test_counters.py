from collections.abc import Iterator
from typing import Protocol

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


def test_a_counter_with_labels_drops_the_series_that_are_not_kept() -> None:
    counter = counters.LabeledCounter("name", "Help.", ["model", "key"])
    counter.add(2, "a", "ann")
    counter.add(3, "a", "ann")
    counter.add(1, "b", "ann")
    assert page(counter)[2:] == [
        'name_total{key="ann",model="a"} 5.0',
        'name_total{key="ann",model="b"} 1.0',
    ]

    counter.keep(lambda labels: labels[0] == "b")
    assert page(counter)[2:] == ['name_total{key="ann",model="b"} 1.0']


def test_a_histogram_with_labels_is_one_histogram_for_each_combination() -> None:
    histogram = counters.LabeledHistogram("name", "Help.", ["model"], (1, 2))
    for value, model in ((0.5, "a"), (3, "a"), (2, "b")):
        histogram.observe(value, model)
    lines = page(histogram)

    assert 'name_bucket{le="1.0",model="a"} 1.0' in lines
    assert 'name_bucket{le="+Inf",model="a"} 2.0' in lines
    assert 'name_sum{model="a"} 3.5' in lines
    assert 'name_count{model="b"} 1.0' in lines
    histogram.keep(lambda labels: labels == ("b",))
    assert not any('model="a"' in line for line in page(histogram))


class Exposed(Protocol):
    def family(self) -> Metric: ...


def page(metric: Exposed) -> list[str]:
    class One(Collector):
        @override
        def collect(self) -> Iterator[Metric]:
            yield metric.family()

    registry = CollectorRegistry()
    registry.register(One())
    return generate_latest(registry).decode().splitlines()
