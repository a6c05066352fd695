"""What holds for the budget policy with any models, requests and delays of the operator."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.planner import MAX_TURN_SECONDS, TURN_FACTOR
from slotkeeper.scaling.budget.resources import Resources, limits
from slotkeeper.simulation.budget.policies import SlotkeeperBudget
from slotkeeper.simulation.budget.simulate import (
    BudgetResult,
    BudgetSimulation,
    ModelRequest,
    SimulatedModel,
)

RESIDENCY = 10.0
MAXIMUM_WAIT = 30.0
LONGEST_SERVICE = 20.0
LONGEST_STOP = 5.0
LONGEST_DELAY = 3.0


class Checked(SlotkeeperBudget):
    """The policy, with what must hold for each of its decisions."""

    @override
    def replicas(self, budget: Budget, models: Sequence[Model], now: float) -> Mapping[str, int]:
        memory = self.memory
        granted = super().replicas(budget, models, now)
        assert self.last is not None
        observed = {model.name: model for model in models}
        assert set(granted) == set(observed)
        assert self.last.used.fits(budget.limit)
        for eviction in self.last.evictions:
            model = observed[eviction.model]
            assert eviction.after >= model.minimum
            assert model.loaded_at is not None
            assert now - model.loaded_at >= budget.minimum_residency_seconds
            assert observed[eviction.beneficiary].queued or observed[eviction.beneficiary].minimum
            if model.is_in_use and eviction.after == 0:
                assert eviction.drains
                since = self.last.memory.wanted_since[eviction.beneficiary]
                assert now - since >= budget.maximum_wait_seconds
        for name, model in observed.items():
            evicted = any(each.model == name for each in self.last.evictions)
            assert (granted[name] < model.alive) == evicted
        # Pure: the same input, the same decision.
        self.memory = memory
        assert super().replicas(budget, models, now) == granted
        return granted


class Case(NamedTuple):
    budget: Budget
    models: list[SimulatedModel]
    requests: list[ModelRequest]
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    gpus = draw(st.integers(1, 4))
    count = draw(st.integers(1, 5))
    models = []
    pinned = 0
    for number in range(count):
        size = draw(st.integers(1, gpus))
        # What is pinned leaves room for the largest of the others.
        minimum = int(draw(st.booleans()) and size == 1 and gpus > 2 and not pinned)
        pinned += minimum
        models.append(
            SimulatedModel(
                f"m{number}",
                Resources(gpus=min(size, gpus - pinned) if not minimum else 1),
                slots=draw(st.integers(1, 3)),
                load_seconds=draw(st.sampled_from([1.0, 7.0, 40.0])),
                stop_seconds=draw(st.floats(0, LONGEST_STOP)),
                minimum=minimum,
                maximum=draw(st.integers(1, 3)),
                idle_seconds=draw(st.sampled_from([20.0, 300.0])),
            )
        )
    if pinned:
        models = [each if each.minimum else _at_most(each, gpus - pinned) for each in models]
    requests = [
        ModelRequest(at, f"m{number}", service)
        for at, number, service in draw(
            st.lists(
                st.tuples(
                    st.floats(0, 300), st.integers(0, count - 1), st.floats(0.1, LONGEST_SERVICE)
                ),
                min_size=1,
                max_size=40,
            )
        )
    ]
    requests.sort(key=lambda request: request.at)
    budget = Budget(limits(gpus=gpus), RESIDENCY, MAXIMUM_WAIT)
    return Case(budget, models, requests, draw(st.integers(0, 99)))


def _at_most(model: SimulatedModel, gpus: int) -> SimulatedModel:
    cost = Resources(gpus=min(model.cost.gpus, gpus))
    return SimulatedModel(
        model.name,
        cost,
        model.slots,
        model.load_seconds,
        model.stop_seconds,
        maximum=model.maximum,
        idle_seconds=model.idle_seconds,
    )


def play(case: Case) -> BudgetResult:
    rng = Random(case.seed)

    def delay() -> float:
        return rng.choice([0.0, rng.uniform(0, LONGEST_DELAY)])

    return BudgetSimulation(case.budget, case.models, Checked(), delay).run(case.requests)


@given(cases())
def test_the_budget_is_never_exceeded_and_every_request_is_served(case: Case) -> None:
    result = play(case)

    assert result.peak.fits(case.budget.limit)
    assert result.loads
    assert max(result.waits) <= bound(case)


@given(cases())
def test_equal_traces_have_equal_results(case: Case) -> None:
    assert play(case) == play(case)


def bound(case: Case) -> float:
    """Each model waits for one turn of each other, and each turn serves what was queued before."""
    loads = sorted(model.load_seconds for model in case.models)
    turn = max(min(TURN_FACTOR * 2 * loads[-1], MAX_TURN_SECONDS), RESIDENCY, MAXIMUM_WAIT)
    swap = loads[-1] + LONGEST_STOP + LONGEST_SERVICE + 2 * LONGEST_DELAY + 2
    work = sum(request.service_seconds for request in case.requests)
    return MAXIMUM_WAIT + len(case.models) * (turn + swap) + work


def test_a_model_that_is_never_idle_starves_nobody() -> None:
    models = [SimulatedModel("hot", slots=1, load_seconds=5.0), SimulatedModel("rare", slots=1)]
    requests = [ModelRequest(2.0 * number, "hot", 2.5) for number in range(600)]
    requests.append(ModelRequest(101.0, "rare", 1.0))
    requests.sort(key=lambda request: request.at)
    budget = Budget(limits(gpus=1))
    result = BudgetSimulation(budget, models, Checked()).run(requests)

    waited = result.waits[requests.index(ModelRequest(101.0, "rare", 1.0))]
    turn = TURN_FACTOR * (5 + 60)
    assert waited <= max(budget.maximum_wait_seconds, turn) + 2.5 + 2 + 60 + 2


def test_two_models_in_turns_are_each_loaded_once_per_minimum_residency_at_most() -> None:
    models = [SimulatedModel(name, slots=1, load_seconds=1.0, stop_seconds=0.0) for name in "ab"]
    requests = [ModelRequest(number / 4, "ab"[number % 2], 0.1) for number in range(1200)]
    result = BudgetSimulation(Budget(limits(gpus=1), 30.0), models, Checked()).run(requests)

    assert result.loads <= result.seconds / 31 + 1
