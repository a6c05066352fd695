"""Summary statistics."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed.

    `ordered` must be sorted and not empty.
    """
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) - 1e-9)))]


def summary(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """Return mean, percentiles and maximum of `values` times `scale`; {} without values."""
    if not values:
        return {}
    ordered = sorted(values)
    statistics = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
    statistics |= {"mean": fmean(ordered), "max": ordered[-1]}
    return {name: value * scale for name, value in statistics.items()}


def median_of(samples: Sequence[Mapping[str, Any]], *path: str) -> float:
    """Return the median of the samples' numbers at `path`."""
    return median(column(samples, *path))


def column(samples: Sequence[Mapping[str, Any]], *path: str) -> list[float]:
    """Return each sample's number at `path`."""
    values = []
    for sample in samples:
        node: Any = sample
        for key in path:
            node = node[key]
        values.append(float(node))
    return values


def median_ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the ratios within each round, which cancels the machine's other load."""
    return median(value / base for value, base in zip(values, baseline, strict=True))


def median_difference(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the differences within each round."""
    return median(value - base for value, base in zip(values, baseline, strict=True))
