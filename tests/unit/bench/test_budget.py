"""The optimum in hindsight, and the policies that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from typing_extensions import override

from bench.budget.optimum import least_load_seconds, least_wait
from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.resources import Resources, limits
from slotkeeper.simulation.budget.policies import EvictAtOnce, SlotkeeperBudget
from slotkeeper.simulation.budget.simulate import (
    BudgetPolicy,
    BudgetSimulation,
    ModelRequest,
    SimulatedModel,
    StarvationError,
)
from slotkeeper.simulation.budget.traces import GENERATORS, generate

ONE = limits(gpus=1)


def models(*loads: float) -> list[SimulatedModel]:
    return [
        SimulatedModel(name, slots=1, load_seconds=load, stop_seconds=0.0)
        for name, load in zip("abcdefgh", loads, strict=False)
    ]


def requests(names: str, gap: float = 100.0) -> list[ModelRequest]:
    return [ModelRequest(gap * number, name, 1.0) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "gpus", "seconds"),
    [
        pytest.param("aaaa", 1, 10, id="once"),
        pytest.param("abab", 1, 60, id="each time with one place"),
        pytest.param("abab", 2, 30, id="once each with two places"),
        pytest.param("abcabc", 2, 10 + 20 + 30 + 20, id="the one that is needed last is evicted"),
    ],
)
def test_the_least_load_time_is_that_of_belady(names: str, gpus: int, seconds: float) -> None:
    specs = models(10, 20, 30)

    assert least_load_seconds(specs, limits(gpus=gpus), requests(names)) == seconds


def test_the_least_load_time_respects_sizes() -> None:
    large = replace(models(10)[0], name="large", cost=Resources(gpus=2))
    specs = [*models(10, 10), large]
    trace = [ModelRequest(number, name, 1) for number, name in enumerate(["a", "b", "large", "a"])]

    assert least_load_seconds(specs, limits(gpus=2), trace) == 40


def test_the_least_wait_loads_ahead_and_serves_together_what_can_wait() -> None:
    specs = models(10, 10)
    # Ahead of its request, where nothing else is queued.
    assert least_wait(specs, [ModelRequest(10, "a", 1), ModelRequest(50, "b", 1)]) == 0
    # b waits for both of a: 12 - 11 and 22 - 10.
    together = [ModelRequest(10, "a", 1), ModelRequest(10, "b", 1), ModelRequest(11, "a", 1)]
    assert least_wait(specs, together) == 12


@pytest.mark.parametrize("policy", [SlotkeeperBudget, EvictAtOnce])
def test_no_policy_waits_less_than_the_optimum(
    policy: type[SlotkeeperBudget] | type[EvictAtOnce],
) -> None:
    for seed in range(10):
        rng = Random(seed)
        trace = [
            ModelRequest(at, rng.choice("abc"), rng.uniform(1, 9))
            for at in sorted(rng.uniform(0, 200) for _ in range(10))
        ]
        specs = models(5, 20, 60)
        result = BudgetSimulation(Budget(ONE), specs, policy()).run(trace)
        assert sum(result.waits) >= least_wait(specs, trace) - 1e-6


def test_lru_starves_a_model_beside_one_that_is_never_idle() -> None:
    trace = [ModelRequest(number, "a", 1.5) for number in range(100_000)]
    trace = [*trace[:50], ModelRequest(50, "b", 1), *trace[50:]]
    simulation = BudgetSimulation(Budget(ONE), models(1, 1), EvictAtOnce())
    result = simulation.run(trace[:2000])

    assert result.waits[50] > 1900


def test_a_policy_that_grants_nothing_starves_its_requests() -> None:
    class Nothing(BudgetPolicy):
        @override
        def replicas(
            self, budget: Budget, models: Sequence[Model], now: float
        ) -> Mapping[str, int]:
            return {model.name: 0 for model in models}

    with pytest.raises(StarvationError, match="1 requests were never served"):
        BudgetSimulation(Budget(ONE), models(1), Nothing()).run([ModelRequest(0, "a", 1)])


def test_equal_seeds_generate_equal_traces_in_order_of_time() -> None:
    scenarios = generate(1)

    assert len(scenarios) == len(GENERATORS)
    assert scenarios == generate(1)
    for scenario in scenarios:
        times = [request.at for request in scenario.requests]
        assert times == sorted(times)
