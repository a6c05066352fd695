"""How valuable each loaded model is: the credits of the Landlord algorithm.

Which model to evict is weighted caching with sizes, "file caching": N. E. Young, On-line file
caching, Algorithmica 33 (2002). Its algorithm Landlord, a generalization of GreedyDual (Young,
The k-server dual and loose competitiveness for paging, Algorithmica 11 (1994)) and of GreedyDual-
Size (P. Cao and S. Irani, Cost-aware WWW proxy caching algorithms, USITS 1997), charges each loaded
model rent for its space, and evicts the one whose credit is used up. A model gets as much credit as
it costs to load, when it is loaded, and at each use again up to that. The load time that it spends
is at most k times that of the optimum in hindsight, where k models fit, which is the least factor
that a deterministic algorithm can guarantee. LRU is the special case in which all costs are equal.

Landlord leaves open how much credit a use restores. Here it is half of the cost for a model without
demand, and all of it for the one with the most: among models that cost the same, those with more
requests stay, as in GreedyDual-Size-Frequency (L. Cherkasova, HP Labs HPL-98-69, 1998), and the
bound holds within a factor of two, however the demand changes.

As in GreedyDual, rent is not subtracted from all: the credit of the evicted model is added to a
level, from which all new credit counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slotkeeper.scaling.budget.observation import Model
from slotkeeper.scaling.budget.resources import ONE_MODEL, Resources


@dataclass(frozen=True)
class Credits:
    """The credits of the loaded models, in seconds of loading for the whole budget."""

    level: float = 0.0
    """The rent so far: a model whose credit counts from it has none left."""
    until: Mapping[str, float] = field(default_factory=dict)
    """The level at which each loaded model has spent its credit."""
    used_at: Mapping[str, float | None] = field(default_factory=dict)
    """The use at which it got that credit."""

    def updated(self, models: Iterable[Model], limit: Resources) -> "Credits":
        """Return the credits after the uses that are observed now."""
        loaded = [model for model in models if model.alive]
        most = max((model.demand for model in loaded), default=0.0)
        until, used_at = {}, {}
        for model in loaded:
            before = self.until.get(model.name)
            if before is None or model.is_in_use or model.used_at != self.used_at[model.name]:
                before = max(self.level + worth(model, limit, most), before or 0.0)
            until[model.name] = before
            used_at[model.name] = model.used_at
        return Credits(self.level, until, used_at)

    def evicted(self, names: Iterable[str]) -> "Credits":
        """Return the credits after the rent that evicts these models is charged to all."""
        level = max((self.until[name] for name in names if name in self.until), default=self.level)
        return Credits(max(self.level, level), self.until, self.used_at)

    def left(self, name: str) -> float:
        """Return the credit of a model: how much more rent it can pay."""
        return max(self.until.get(name, self.level) - self.level, 0.0)


def worth(model: Model, limit: Resources, most: float) -> float:
    """Return the credit of a model at its use: the cost of loading it, per share of the budget.

    Less with a smaller demand than `most`, the maximum of all models.
    """
    share = model.cost.plus(ONE_MODEL).share_of(limit)
    popularity = model.demand / most if most else 1.0
    return model.reload_seconds / max(share, 1e-9) * (0.5 + 0.5 * popularity)
