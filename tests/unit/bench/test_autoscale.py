"""The oracle's cost, and the frontier of a sweep."""

import pytest

from bench.autoscale.frontier import (
    SingleSetting,
    best_single_setting,
    cheapest,
    excess,
    frontier,
)
from bench.autoscale.oracle import oracle_seconds
from bench.autoscale.sweep import FIXED, SCHEDULED, SLOTKEEPER, Case, Fixed, Point, settings, sweep
from slotkeeper.scaling.sample import Sample
from slotkeeper.simulation.generate import GENERATORS, generate
from slotkeeper.simulation.reference_policies import REFERENCE_POLICIES
from slotkeeper.simulation.report import share_within
from slotkeeper.simulation.simulate import Observation, ReplicaModel, Simulation
from slotkeeper.simulation.trace import TraceRequest


def point(system: str, service_level: float, cost_ratio: float) -> Point:
    return Point(system, "", service_level, cost_ratio, 0.0, 0)


@pytest.mark.parametrize(
    ("requests", "seconds"),
    [
        pytest.param([TraceRequest(10, 90)], 100, id="the first replica always runs"),
        pytest.param(
            [TraceRequest(10, 90), TraceRequest(50, 10)],
            100 + 10 + 5,
            id="a second loads before it is needed",
        ),
        pytest.param(
            [TraceRequest(2, 98), TraceRequest(2, 10)],
            100 + 10 + 2,
            id="but not before the beginning",
        ),
        pytest.param(
            [TraceRequest(0, 100), TraceRequest(50, 10), TraceRequest(62, 8)],
            100 + 18 + 5 + 2,
            id="it is kept over a short pause",
        ),
        pytest.param(
            [TraceRequest(0, 100), TraceRequest(50, 10), TraceRequest(80, 8)],
            100 + 18 + 2 * 5,
            id="it is removed over a long pause",
        ),
        pytest.param(
            [TraceRequest(0, 50), TraceRequest(50, 50)], 100, id="requests one after the other"
        ),
    ],
)
def test_the_oracle_pays_for_the_replicas_needed_and_their_loading(
    requests: list[TraceRequest], seconds: float
) -> None:
    assert oracle_seconds(requests, ReplicaModel(slots=1, load_seconds=5)) == seconds


POINTS = [
    *(point(SLOTKEEPER, 0.9, 1.0), point(SLOTKEEPER, 0.99, 1.5), point(SLOTKEEPER, 0.98, 1.6)),
    *(point("gpu", 0.95, 3.0), point("gpu", 0.9, 1.0), point("gpu", 0.5, 0.1)),
]


def test_the_cheapest_point_reaches_the_service_level() -> None:
    assert cheapest(POINTS, SLOTKEEPER, 0.95) == point(SLOTKEEPER, 0.99, 1.5)
    assert cheapest(POINTS, "gpu", 0.99) is None


def test_a_frontier_has_only_pareto_optimal_points() -> None:
    assert [each.cost_ratio for each in frontier(POINTS, SLOTKEEPER)] == [1.0, 1.5]


def test_the_excess_is_the_maximum_over_the_frontier_from_a_service_level_on() -> None:
    assert excess(POINTS, SLOTKEEPER, "gpu", 0.95) == 0.5
    assert excess(POINTS, SLOTKEEPER, "gpu", 0.9) == 1.0
    assert excess(POINTS, "gpu", SLOTKEEPER, 0.9) == float("inf")
    assert excess(POINTS, SLOTKEEPER, "gpu", 0.99) is None


def test_the_best_single_setting_reaches_most_cases_and_is_then_the_cheapest() -> None:
    results = {
        Case("day", load_seconds): [
            Point(SLOTKEEPER, setting, service_level, cost_ratio, 0.0, 0)
            for setting, service_level, cost_ratio in (
                ("low", 0.99, low_cost_ratio),
                ("mid", 0.99, 2.0),
                ("high", high_service_level, 1),
            )
        ]
        for load_seconds, low_cost_ratio, high_service_level in (
            (20.0, 3.0, 0.99),
            (120.0, 2.0, 0.9),
        )
    }
    results[Case("day", 120.0)].append(Point(SLOTKEEPER, "of one case only", 1.0, 0.1, 0.0, 0))

    assert best_single_setting(results, SLOTKEEPER, 0.99) == SingleSetting("mid", 2, 2.0)
    assert best_single_setting(results, SLOTKEEPER, 0.8) == SingleSetting("high", 2, 1.0)


@pytest.mark.parametrize("trace", GENERATORS)
def test_every_system_is_swept_and_no_setting_twice(trace: str) -> None:
    swept = [(system, setting) for system, setting, _ in settings(Case(trace, 20.0))]

    assert {system for system, _ in swept} - {SCHEDULED} == {SLOTKEEPER, *REFERENCE_POLICIES, FIXED}
    assert len(set(swept)) == len(swept)


@pytest.mark.parametrize("load_seconds", [20.0, 120.0, 300.0])
def test_schedules_serve_bursts_at_once(load_seconds: float) -> None:
    case = Case("burst", load_seconds)
    [create] = [
        create
        for system, setting, create in settings(case)
        if system == SCHEDULED
        and setting.startswith("14 from ")
        and setting.endswith(", else 2, down after 60 s")
    ]

    result = Simulation(ReplicaModel(4, load_seconds), create()).run(generate("burst", 2))

    assert share_within(result.waits, 1) > 0.99


def test_the_fixed_system_never_scales() -> None:
    observation = Observation(Sample(0.0, 9, 9, 0.0, 18), 1, [4])

    assert Fixed(3).desired_replicas(observation) == 3


def test_a_sweep_simulates_each_setting_on_each_trace() -> None:
    case = Case("burst", 20.0)

    results = sweep([case], few=True)

    assert [each.system for each in results[case]] == [
        SLOTKEEPER,
        *REFERENCE_POLICIES,
        SCHEDULED,
        FIXED,
    ]
    assert all(0 < each.service_level < 1 for each in results[case])
    # The oracle serves all requests at once, so that one fixed replica costs less.
    assert all((each.cost_ratio > 1) == (each.system != FIXED) for each in results[case])
