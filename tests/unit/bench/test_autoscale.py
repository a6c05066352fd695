"""The oracle's price, and which points of a sweep count."""

import pytest

from bench.autoscale.frontier import cheapest, excess, frontier
from bench.autoscale.oracle import oracle_seconds
from bench.autoscale.sweep import OURS, Case, Point, settings, sweep
from slotkeeper.whatif.peers import PEERS
from slotkeeper.whatif.simulate import Replicas
from slotkeeper.whatif.trace import Call


def point(system: str, good: float, ratio: float) -> Point:
    return Point(system, "", good, ratio, 0.0, 0)


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [
        pytest.param([Call(10, 90)], 100, id="one is always there"),
        pytest.param([Call(10, 90), Call(50, 10)], 100 + 10 + 5, id="a second loads before"),
        pytest.param([Call(2, 98), Call(2, 10)], 100 + 10 + 2, id="not before the beginning"),
        pytest.param([Call(0, 100), Call(50, 10), Call(62, 8)], 100 + 18 + 5 + 2, id="it stays"),
        pytest.param([Call(0, 100), Call(50, 10), Call(80, 8)], 100 + 18 + 2 * 5, id="it goes"),
        pytest.param([Call(0, 50), Call(50, 50)], 100, id="one after the other"),
    ],
)
def test_an_oracle_pays_for_what_is_needed_and_for_loading(
    calls: list[Call], seconds: float
) -> None:
    assert oracle_seconds(calls, Replicas(slots=1, load_seconds=5)) == seconds


POINTS = [
    *(point(OURS, 0.9, 1.0), point(OURS, 0.99, 1.5), point(OURS, 0.98, 1.6)),
    *(point("gpu", 0.95, 3.0), point("gpu", 0.9, 1.0), point("gpu", 0.5, 0.1)),
]


def test_the_cheapest_is_the_one_that_is_good_enough() -> None:
    assert cheapest(POINTS, OURS, 0.95) == point(OURS, 0.99, 1.5)
    assert cheapest(POINTS, "gpu", 0.99) is None


def test_a_frontier_has_no_point_that_another_one_beats() -> None:
    assert [each.ratio for each in frontier(POINTS, OURS)] == [1.0, 1.5]


def test_the_worst_of_a_frontier_counts_where_it_is_of_use() -> None:
    assert excess(POINTS, OURS, "gpu", 0.95) == 0.5
    assert excess(POINTS, OURS, "gpu", 0.9) == 1.0
    assert excess(POINTS, "gpu", OURS, 0.9) == float("inf")
    assert excess(POINTS, OURS, "gpu", 0.99) is None


def test_every_system_is_swept() -> None:
    assert {system for system, _, _ in settings()} == {OURS, *PEERS}


def test_a_sweep_plays_each_setting_on_each_trace() -> None:
    case = Case("burst", 20.0)

    found = sweep([case], few=True)

    assert [each.system for each in found[case]] == [OURS, *PEERS]
    assert all(0 < each.good < 1 and each.ratio > 1 for each in found[case])
