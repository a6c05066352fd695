"""Counters and histograms that one thread fills and a scrape reads."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Counter:
    """A number that only grows. prometheus_client's own takes a lock, and ten times as long."""

    __slots__ = ("_about", "_name", "value")

    def __init__(self, name: str, about: str) -> None:
        self._name = name
        self._about = about
        self.value = 0

    def inc(self) -> None:
        """One more."""
        self.value += 1

    def family(self) -> CounterMetricFamily:
        """What it says to Prometheus."""
        return CounterMetricFamily(self._name, self._about, value=self.value)


class Counters:
    """A Counter for each value of a label; those of `values` are there from the start."""

    __slots__ = ("_about", "_counts", "_label", "_name")

    def __init__(self, name: str, about: str, label: str, values: Iterable[str]) -> None:
        self._name = name
        self._about = about
        self._label = label
        self._counts = dict.fromkeys(values, 0)

    def inc(self, value: str) -> None:
        """One more of `value`."""
        self._counts[value] = self._counts.get(value, 0) + 1

    def family(self) -> CounterMetricFamily:
        """What they say to Prometheus."""
        family = CounterMetricFamily(self._name, self._about, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        return family


class Histogram:
    """How many values were up to each of the `bounds` (rising), and their sum."""

    __slots__ = ("_about", "_bounds", "_counts", "_name", "_sum")

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._about = about
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self) -> HistogramMetricFamily:
        """What it says to Prometheus."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(self._name, self._about, buckets, sum_value=self._sum)
