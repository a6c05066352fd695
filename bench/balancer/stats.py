"""Numbers from numbers."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of `ordered` (rising, not empty) does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) - 1e-9)))]


def summary(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """Mean, percentiles and maximum of `values` times `scale`; empty where there are none."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
    found |= {"mean": fmean(ordered), "max": ordered[-1]}
    return {name: value * scale for name, value in found.items()}


def median_of(pieces: Sequence[Mapping[str, Any]], *path: str) -> float:
    """The median over pieces of the number that each has at `path`."""
    return median(column(pieces, *path))


def column(pieces: Sequence[Mapping[str, Any]], *path: str) -> list[float]:
    """The number that each piece has at `path`."""
    values = []
    for piece in pieces:
        found: Any = piece
        for key in path:
            found = found[key]
        values.append(float(found))
    return values


def median_ratio(values: Sequence[float], beside: Sequence[float]) -> float:
    """The median of the ratios within each round: what the machine did meanwhile falls out."""
    return median(ours / theirs for ours, theirs in zip(values, beside, strict=True))


def median_difference(values: Sequence[float], beside: Sequence[float]) -> float:
    """The median of the differences within each round."""
    return median(ours - theirs for ours, theirs in zip(values, beside, strict=True))
