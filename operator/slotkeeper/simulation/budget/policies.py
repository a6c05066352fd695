"""Budget policies: Slotkeeper's, and LRU as llama-swap evicts."""

from collections.abc import Callable, Mapping, Sequence

from typing_extensions import override

from slotkeeper.scaling.budget.decision import BudgetPlan, Memory
from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.planner import plan
from slotkeeper.scaling.budget.resources import ONE_MODEL, Resources
from slotkeeper.simulation.budget.simulate import BudgetPolicy


class SlotkeeperBudget(BudgetPolicy):
    """Slotkeeper's policy."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.last: BudgetPlan | None = None

    @override
    def replicas(self, budget: Budget, models: Sequence[Model], now: float) -> Mapping[str, int]:
        """Return the granted replicas of each model."""
        self.last = plan(budget, models, self.memory, now)
        self.memory = self.last.memory
        return {name: grant.replicas for name, grant in self.last.grants.items()}


Value = Callable[[Model, float], float]


def least_recently_used(model: Model, now: float) -> float:
    """Rank by the last use."""
    return -model.idle_seconds(now)


def demand_over_load_seconds(model: Model, _: float) -> float:
    """Rank by the demand for each second of loading."""
    return model.demand / model.reload_seconds


class EvictAtOnce(BudgetPolicy):
    """Evicts at once, for the longest-waiting model, the idle one with the least value.

    With the last use as the value, this is llama-swap's scheduler: requests for a loaded model are
    served at once; others are queued, first in, first out; a model that is in use is never evicted,
    but waited for; there is no minimum residency, and no bound of the wait. As there, resources are
    free only when a process has ended, and a model has one replica.
    """

    def __init__(self, value: Value = least_recently_used) -> None:
        self._value = value

    @override
    def replicas(self, budget: Budget, models: Sequence[Model], now: float) -> Mapping[str, int]:
        """Return 1 for each model that may be loaded, or stay so."""
        allowed = {model.name: model.alive for model in models}
        free = budget.limit
        for model in models:
            free = free.minus(model.occupied)
        coming = free
        for model in models:
            if not model.alive:
                coming = coming.plus(model.occupied)
        idle = [each for each in models if each.ready and not each.is_in_use]
        idle.sort(key=lambda model: (self._value(model, now), model.name))
        asked = [each for each in models if each.queued and not each.alive and not each.stopping]
        for model in sorted(asked, key=lambda each: -each.oldest_queued_seconds):
            need = model.cost.plus(ONE_MODEL)
            victims, room = _victims(idle, coming, need)
            if not need.fits(room):
                continue
            coming = room.minus(need)
            if not victims and need.fits(free):
                allowed[model.name] = 1
                free = free.minus(need)
            for each in victims:
                allowed[each.name] = 0
                idle.remove(each)
        return allowed


def _victims(
    idle: Sequence[Model], room: Resources, need: Resources
) -> tuple[list[Model], Resources]:
    """Return the first models that make enough room, and the room with them."""
    victims = list[Model]()
    for model in idle:
        if need.fits(room):
            break
        victims.append(model)
        room = room.plus(model.occupied)
    return victims, room
