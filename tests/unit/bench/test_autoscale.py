"""The oracle's price, and which points of a sweep count."""

import pytest

from bench.autoscale.frontier import OneForAll, cheapest, excess, frontier, one_for_all
from bench.autoscale.oracle import oracle_seconds
from bench.autoscale.sweep import FIXED, OURS, SCHEDULED, Case, Fixed, Point, settings, sweep
from slotkeeper.scaling.sample import Sample
from slotkeeper.simulation.generate import GENERATORS, draw
from slotkeeper.simulation.reference_policies import PEERS
from slotkeeper.simulation.report import share_within
from slotkeeper.simulation.simulate import Observation, ReplicaModel, Simulation
from slotkeeper.simulation.trace import TraceRequest


def point(system: str, good: float, ratio: float) -> Point:
    return Point(system, "", good, ratio, 0.0, 0)


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [
        pytest.param([TraceRequest(10, 90)], 100, id="one is always there"),
        pytest.param(
            [TraceRequest(10, 90), TraceRequest(50, 10)], 100 + 10 + 5, id="a second loads before"
        ),
        pytest.param(
            [TraceRequest(2, 98), TraceRequest(2, 10)], 100 + 10 + 2, id="not before the beginning"
        ),
        pytest.param(
            [TraceRequest(0, 100), TraceRequest(50, 10), TraceRequest(62, 8)],
            100 + 18 + 5 + 2,
            id="it stays",
        ),
        pytest.param(
            [TraceRequest(0, 100), TraceRequest(50, 10), TraceRequest(80, 8)],
            100 + 18 + 2 * 5,
            id="it goes",
        ),
        pytest.param([TraceRequest(0, 50), TraceRequest(50, 50)], 100, id="one after the other"),
    ],
)
def test_an_oracle_pays_for_what_is_needed_and_for_loading(
    calls: list[TraceRequest], seconds: float
) -> None:
    assert oracle_seconds(calls, ReplicaModel(slots=1, load_seconds=5)) == seconds


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


def test_one_setting_for_all_is_the_one_that_is_good_most_often_and_then_the_cheapest() -> None:
    found = {
        Case("day", load): [
            Point(OURS, setting, good, ratio, 0.0, 0)
            for setting, good, ratio in (
                ("low", 0.99, ratio),
                ("mid", 0.99, 2.0),
                ("high", most, 1),
            )
        ]
        for load, ratio, most in ((20.0, 3.0, 0.99), (120.0, 2.0, 0.9))
    }
    found[Case("day", 120.0)].append(Point(OURS, "of this one", 1.0, 0.1, 0.0, 0))

    assert one_for_all(found, OURS, 0.99) == OneForAll("mid", 2, 2.0)
    assert one_for_all(found, OURS, 0.8) == OneForAll("high", 2, 1.0)


@pytest.mark.parametrize("trace", GENERATORS)
def test_every_system_is_swept_and_no_setting_twice(trace: str) -> None:
    swept = [(system, setting) for system, setting, _ in settings(Case(trace, 20.0))]

    assert {system for system, _ in swept} - {SCHEDULED} == {OURS, *PEERS, FIXED}
    assert len(set(swept)) == len(swept)


@pytest.mark.parametrize("load_seconds", [20.0, 120.0, 300.0])
def test_who_knows_when_bursts_come_serves_them_at_once(load_seconds: float) -> None:
    case = Case("burst", load_seconds)
    [make] = [
        make
        for system, setting, make in settings(case)
        if system == SCHEDULED
        and setting.startswith("14 from ")
        and setting.endswith(", else 2, down after 60 s")
    ]

    outcome = Simulation(ReplicaModel(4, load_seconds), make()).run(draw("burst", 2))

    assert share_within(outcome.waits, 1) > 0.99


def test_who_never_scales_wants_what_it_wanted() -> None:
    look = Observation(Sample(0.0, 9, 9, 0.0, 18), 1, [4])

    assert Fixed(3).wanted(look) == 3


def test_a_sweep_plays_each_setting_on_each_trace() -> None:
    case = Case("burst", 20.0)

    found = sweep([case], few=True)

    assert [each.system for each in found[case]] == [OURS, *PEERS, SCHEDULED, FIXED]
    assert all(0 < each.good < 1 for each in found[case])
    # An oracle that serves all of them at once pays more than who always has one.
    assert all((each.ratio > 1) == (each.system != FIXED) for each in found[case])
