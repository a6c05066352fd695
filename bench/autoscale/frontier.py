"""The best cost and service level that a system reaches with any of its settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.autoscale.sweep import Case, Point


def cheapest(points: Iterable[Point], system: str, service_level: float) -> Point | None:
    """Return a system's cheapest point with at least this service level; None without any."""
    reached = (each for each in points if each.system == system)
    enough = (each for each in reached if each.service_level >= service_level)
    return min(enough, key=lambda point: (point.cost_ratio, -point.service_level), default=None)


def frontier(points: Iterable[Point], system: str) -> list[Point]:
    """Return a system's Pareto-optimal points in cost and service level, the cheapest first."""
    best: list[Point] = []
    own = (point for point in points if point.system == system)
    for point in sorted(own, key=lambda point: (point.cost_ratio, -point.service_level)):
        if not best or point.service_level > best[-1].service_level:
            best.append(point)
    return best


def excess(points: Sequence[Point], own: str, other: str, service_level: float) -> float | None:
    """Return the largest cost of `own` relative to `other` at equal or better service levels.

    Over the points of the frontier of `other` with at least `service_level`; None without any. 1
    or less if `own` is on or below the frontier everywhere; infinite if `other` has a point whose
    service level `own` does not reach at any cost.
    """
    ratios = []
    for point in frontier(points, other):
        if point.service_level >= service_level:
            best = cheapest(points, own, point.service_level)
            ratios.append(best.cost_ratio / point.cost_ratio if best else float("inf"))
    return max(ratios, default=None)


@dataclass(frozen=True)
class SingleSetting:
    """The results of a system with one setting for all cases, as its users have it."""

    setting: str
    reached: int
    """Number of cases with the required service level."""
    cost_ratio: float
    """Mean over all cases."""


def best_single_setting(
    results: Mapping[Case, Sequence[Point]], system: str, service_level: float
) -> SingleSetting:
    """Return the setting that reaches the service level in most cases, of those the cheapest.

    Raises ValueError if the system has no setting that was simulated in all cases.
    """
    by_setting: dict[str, list[Point]] = {}
    for points in results.values():
        for point in points:
            if point.system == system:
                by_setting.setdefault(point.setting, []).append(point)
    candidates = [
        SingleSetting(
            setting,
            sum(point.service_level >= service_level for point in points),
            sum(point.cost_ratio for point in points) / len(points),
        )
        for setting, points in by_setting.items()
        if len(points) == len(results)
    ]
    return min(candidates, key=lambda each: (-each.reached, each.cost_ratio))
