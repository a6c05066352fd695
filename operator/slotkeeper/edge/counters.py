"""Counters and histograms, updated by one thread and read by scrapes."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Counter:
    """A counter. prometheus_client's own takes a lock, and ten times as long."""

    __slots__ = ("_help_text", "_name", "value")

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help_text = help_text
        self.value = 0

    def inc(self) -> None:
        """Add 1."""
        self.value += 1

    def family(self) -> CounterMetricFamily:
        """Return the sample for a scrape."""
        return CounterMetricFamily(self._name, self._help_text, value=self.value)


class Counters:
    """A counter with one label. The series of `values` exist from the start."""

    __slots__ = ("_counts", "_help_text", "_label", "_name")

    def __init__(self, name: str, help_text: str, label: str, values: Iterable[str]) -> None:
        self._name = name
        self._help_text = help_text
        self._label = label
        self._counts = dict.fromkeys(values, 0)

    def inc(self, value: str) -> None:
        """Add 1 to the series whose label has this value."""
        self._counts[value] = self._counts.get(value, 0) + 1

    def family(self) -> CounterMetricFamily:
        """Return the samples for a scrape."""
        family = CounterMetricFamily(self._name, self._help_text, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        return family


class Histogram:
    """A histogram; `bounds` are the upper bounds of its buckets, ascending, without +Inf."""

    __slots__ = ("_bounds", "_counts", "_help_text", "_name", "_sum")

    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._help_text = help_text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self) -> HistogramMetricFamily:
        """Return the samples for a scrape."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(self._name, self._help_text, buckets, sum_value=self._sum)
