"""The best that a policy reaches with any of its settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.autoscale.sweep import Case, Point


def cheapest(points: Iterable[Point], system: str, good: float) -> Point | None:
    """The cheapest point of a system of which at least `good` did not wait; None: it has none."""
    reached = (point for point in points if point.system == system and point.good >= good)
    return min(reached, key=lambda point: (point.ratio, -point.good), default=None)


def frontier(points: Iterable[Point], system: str) -> list[Point]:
    """The points of a system that no other one of it beats in both, the cheapest first."""
    best: list[Point] = []
    own = (point for point in points if point.system == system)
    for point in sorted(own, key=lambda point: (point.ratio, -point.good)):
        if not best or point.good > best[-1].good:
            best.append(point)
    return best


def excess(points: Sequence[Point], ours: str, peer: str, good: float) -> float | None:
    """How much more, at most, `ours` costs than a point of the peer's frontier, for as good a one.

    Only points of which at least `good` did not wait count; None where the peer has none. A ratio:
    1 or less where ours lies on or below the frontier everywhere, infinite where the peer has a
    point that ours does not reach at any price.
    """
    ratios = []
    for theirs in frontier(points, peer):
        if theirs.good >= good:
            own = cheapest(points, ours, theirs.good)
            ratios.append(own.ratio / theirs.ratio if own else float("inf"))
    return max(ratios, default=None)


@dataclass(frozen=True)
class OneForAll:
    """What a system reaches with one setting on every case, as its users have it."""

    setting: str
    reached: int
    """On how many cases it is good enough."""
    ratio: float
    """The mean of what all of them cost."""


def one_for_all(found: Mapping[Case, Sequence[Point]], system: str, good: float) -> OneForAll:
    """The setting that is good enough on the most cases, and of those the cheapest.

    Raises ValueError where the system has no setting that was played on all cases.
    """
    played: dict[str, list[Point]] = {}
    for points in found.values():
        for point in points:
            if point.system == system:
                played.setdefault(point.setting, []).append(point)
    tried = [
        OneForAll(
            setting,
            sum(point.good >= good for point in points),
            sum(point.ratio for point in points) / len(points),
        )
        for setting, points in played.items()
        if len(points) == len(found)
    ]
    return min(tried, key=lambda each: (-each.reached, each.ratio))
