"""Counters and histograms, updated by one thread and read by scrapes."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
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

    def add(self, value: str, count: int) -> None:
        """Add to the series whose label has this value."""
        self._counts[value] = self._counts.get(value, 0) + count

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
        return HistogramMetricFamily(
            self._name, self._help_text, self.buckets(), sum_value=self._sum
        )

    @property
    def sum(self) -> float:
        """The sum of all observations."""
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper bound of each bucket, and the observations up to it."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


Labels = tuple[str, ...]
"""Values of the labels, in order."""


class LabeledCounter:
    """A counter with several labels, whose series exist from their first use."""

    __slots__ = ("_counts", "_help_text", "_labels", "_name")

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._name = name
        self._help_text = help_text
        self._labels = labels
        self._counts: dict[Labels, float] = {}

    def add(self, count: float, *values: str) -> None:
        """Add to the series whose labels have these values."""
        self._counts[values] = self._counts.get(values, 0) + count

    def keep(self, wanted: Callable[[Labels], bool]) -> None:
        """Drop all series but these."""
        for values in [each for each in self._counts if not wanted(each)]:
            del self._counts[values]

    def family(self) -> CounterMetricFamily:
        """Return the samples for a scrape."""
        family = CounterMetricFamily(self._name, self._help_text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        return family


class LabeledHistogram:
    """Histograms with several labels, whose series exist from their first use."""

    __slots__ = ("_bounds", "_help_text", "_labels", "_name", "_series")

    def __init__(
        self, name: str, help_text: str, labels: list[str], bounds: Sequence[float]
    ) -> None:
        self._name = name
        self._help_text = help_text
        self._labels = labels
        self._bounds = bounds
        self._series: dict[Labels, Histogram] = {}

    def observe(self, value: float, *values: str) -> None:
        """Add an observation to the series whose labels have these values."""
        series = self._series.get(values)
        if series is None:
            series = Histogram(self._name, self._help_text, self._bounds)
            self._series[values] = series
        series.observe(value)

    def keep(self, wanted: Callable[[Labels], bool]) -> None:
        """Drop all series but these."""
        for values in [each for each in self._series if not wanted(each)]:
            del self._series[values]

    def family(self) -> HistogramMetricFamily:
        """Return the samples for a scrape."""
        family = HistogramMetricFamily(self._name, self._help_text, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.buckets(), series.sum)
        return family
