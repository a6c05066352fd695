"""The budget decision: which models may have how many replicas, and which make room."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from slotkeeper.scaling.budget.decision import BudgetPlan, BudgetReason, Eviction, Grant, Memory
from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.resources import ONE_MODEL, Resources, describe

GRANT_SECONDS = 10.0
"""How long granted replicas count though they are not observed: writing the Deployment and the
watch event that shows it take as long at most, or else the write has failed."""

TURN_FACTOR = 4.0
"""A model that is in use is kept for so many times what it and the next one take to load: two that
are always in use then spend a fifth of their time on loading at most."""

MAX_TURN_SECONDS = 300.0
"""Not for longer than this: the default of coldStartTimeoutSeconds, 570 s, must be enough for the
turn of one model and the loading of the next."""

FAILED_FACTOR = 10.0
"""How many times longer a model waits, before others drain for it, whose replicas could not start
the last time."""


def plan(budget: Budget, models: Sequence[Model], memory: Memory, now: float) -> BudgetPlan:
    """Decide how many replicas each model may have.

    1. Replicas occupy their resources until their pods are deleted. A replica is granted only if
       it fits into what is free now, so that the budget is never exceeded.
    2. Models below minReplicas are served first, then models without a replica, then further
       replicas. Models that have waited for the maximum wait come first, the longest wait first;
       then those with the most requests for each second of loading and share of the budget.
    3. Without room, idle replicas are evicted, if that makes enough: replicas that cannot start,
       then further replicas, then the model with the least credit (see `credits`). Not before they
       have been loaded for the minimum residency, and not below minReplicas. Further replicas get
       the place of a model only if that has been idle for as long as it takes to load.
    4. If that is not enough and the model has waited for the maximum wait, models that are in use
       drain, the one with the least credit first, once they have had their turn: TURN_FACTOR times
       the loading of both, MAX_TURN_SECONDS at most, and the requests that were queued before it.
       They get no new requests, complete the running ones, and then wait themselves.
    5. Room that is being made is reserved. What is free beyond it is granted to the next models.
    6. A model whose requests are all preemptible comes last, gets only what is free, and is evicted
       like one that is idle.

    So a model waits for the maximum wait or the turn of a model that is in use, whichever is
    longer, its longest request and its termination, and for as much for each model before it.
    Serving what was queued before a turn makes it a gated polling system (H. Takagi, Queuing
    analysis of polling models, ACM Computing Surveys 20 (1988)), which is stable at any demand
    that the replicas can serve.
    """
    return _Planner(budget, models, memory, now).plan()


@dataclass(frozen=True)
class _Candidate:
    """Replicas of one model that may go: a further one, or all."""

    model: Model
    replicas: int
    all: bool
    drains: bool
    key: tuple[bool, bool, float, float, str]

    @property
    def frees(self) -> Resources:
        return Resources().plus(self.model.cost, self.replicas).plus(ONE_MODEL, int(self.all))


class _Planner:
    def __init__(self, budget: Budget, models: Sequence[Model], memory: Memory, now: float) -> None:
        self._budget = budget
        self._limit = budget.limit
        self._memory = memory
        self._now = now
        self._models = {model.name: self._with_granted(model) for model in models}
        self._observed = {model.name: model for model in models}
        values = self._models.values()
        self._used = _sum(model.occupied for model in values)
        self._credits = memory.credits.updated(values, self._limit)
        self._free = self._limit.minus(self._used)
        """What may be granted now."""
        stopping = [replace(model, ready=0, starting=0) for model in values if not model.alive]
        partly = [model for model in values if model.alive]
        self._coming = self._free.plus(_sum(model.occupied for model in stopping))
        for model in partly:
            self._coming = self._coming.plus(model.cost, model.stopping)
        """The same once all that terminate are deleted, less what is reserved."""
        self._replicas = {model.name: model.alive for model in values}
        self._grants: dict[str, Grant] = {}
        self._evictions: list[Eviction] = []
        self._waiting: list[str] = []
        self._pinned = _sum(
            Resources().plus(model.cost, model.minimum).plus(ONE_MODEL, int(model.minimum > 0))
            for model in values
        )
        self._since = self._wanted_since()

    def plan(self) -> BudgetPlan:
        for model in sorted(self._models.values(), key=self._order):
            while model.alive <= self._replicas[model.name] < model.required:
                if not self._grant_one(model):
                    self._waiting.append(model.name)
                    break
        for model in self._models.values():
            if model.name not in self._grants:
                self._grants[model.name] = Grant(
                    self._replicas[model.name],
                    BudgetReason.WITHIN_BUDGET,
                    "within the budget",
                )
        return BudgetPlan(
            {name: self._grants[name] for name in self._models},
            tuple(self._evictions),
            tuple(self._waiting),
            self._used,
            self._remember(),
        )

    # What is observed.

    def _with_granted(self, model: Model) -> Model:
        """The model with the replicas that were granted and are not observed yet."""
        replicas, at = self._memory.granted.get(model.name, (0, 0.0))
        if replicas <= model.alive or self._now - at >= GRANT_SECONDS:
            return model
        return replace(model, starting=replicas - model.ready)

    def _wanted_since(self) -> dict[str, float]:
        since = {}
        for name, model in self._models.items():
            if model.alive or not model.required or _takes_only_free_room(model):
                continue
            # Requests that were queued while it had its turn do not count.
            asked = max(
                self._now - model.oldest_queued_seconds, self._memory.alive_at.get(name, -inf)
            )
            since[name] = self._memory.wanted_since.get(name, asked)
        return since

    def _waited(self, model: Model) -> float:
        return self._now - self._since[model.name] if model.name in self._since else 0.0

    def _is_overdue(self, model: Model) -> bool:
        """Whether a model has waited for so long that one in use has to make room."""
        limit = self._budget.maximum_wait_seconds
        if model.name in self._memory.failed:
            limit *= FAILED_FACTOR
        return model.name in self._since and self._waited(model) >= limit

    def _order(self, model: Model) -> tuple[int, float, float, float, str]:
        alive = model.alive
        tier = 0 if alive < model.minimum else 1 if not alive else 2
        if model.blocked or model.name in self._memory.failed:
            # Each try may evict another model, and is probably in vain.
            tier = 3
        if _takes_only_free_room(model):
            tier = 4
        overdue = self._waited(model) if self._is_overdue(model) else 0.0
        share = model.cost.plus(ONE_MODEL).share_of(self._limit)
        urgency = (model.queued + model.busy) / (model.reload_seconds * max(share, 1e-9))
        return tier, -overdue, -urgency, -self._waited(model), model.name

    # One replica.

    def _grant_one(self, model: Model) -> bool:
        """Grant one more replica, or make room for one; whether it is granted."""
        name = model.name
        none = self._replicas[name] == 0
        # While its last pod terminates it still counts as a loaded model. But that one is coming:
        # it may be reserved for another model.
        now = model.cost.plus(ONE_MODEL, int(none and not model.stopping))
        need = model.cost.plus(ONE_MODEL, int(none))
        if now.fits(self._free) and need.fits(self._coming):
            self._free = self._free.minus(now)
            self._coming = self._coming.minus(need)
            self._replicas[name] += 1
            return True
        whole = model.cost.plus(ONE_MODEL)
        others = self._pinned.minus(
            Resources().plus(model.cost, model.minimum).plus(ONE_MODEL, int(model.minimum > 0))
        )
        if not self._replicas[name] and not whole.plus(others).fits(self._limit):
            reserved = f", {self._text(others)} of it reserved by minReplicas of other models"
            self._wait(
                model,
                f"{self._text(model.cost.plus(ONE_MODEL))} needed, the budget is "
                f"{self._text(self._limit)}{reserved if any(others) else ''}",
                BudgetReason.EXCEEDS_BUDGET,
            )
            return False
        if _takes_only_free_room(model):
            message = f"{self._text(need)} needed, all requests are preemptible"
        else:
            message = self._make_room(model, need)
        self._wait(model, message)
        return False

    def _make_room(self, model: Model, need: Resources) -> str:
        """Evict what is needed, and reserve it; return what the model waits for."""
        required = f"{self._text(need)} needed"
        if need.fits(self._coming):
            self._coming = self._coming.minus(need)
            return f"{required}, next when replicas that terminate are deleted"
        first = not self._replicas[model.name] or self._replicas[model.name] < model.minimum
        missing = need.minus(self._coming)
        victims = _choose(self._candidates(model, first=first, drain=False), missing)
        overdue = first and self._is_overdue(model)
        if not victims and overdue:
            victims = _choose(self._candidates(model, first=True, drain=True), missing)
        if victims:
            for victim in victims:
                self._evict(victim, model)
            self._coming = self._coming.minus(need)
            names = ", ".join(victim.model.name for victim in victims)
            return f"{required}, next when {names} {'has' if len(victims) == 1 else 'have'} gone"
        if overdue:
            # No other model gets what becomes free meanwhile.
            self._coming = self._coming.minus(need)
            return f"{required}, next when a model may be evicted"
        return f"{required}, all others are in use or have been loaded too recently"

    def _wait(
        self, model: Model, message: str, reason: BudgetReason = BudgetReason.WAITING
    ) -> None:
        waited = f", waiting for {self._waited(model):.0f} s" if model.name in self._since else ""
        self._grants[model.name] = Grant(
            self._replicas[model.name], reason, f"queued {model.queued}{waited}: {message}"
        )

    # What may go.

    def _candidates(self, model: Model, *, first: bool, drain: bool) -> list[_Candidate]:
        """Replicas of others that may go for this model, the least valuable first."""
        found: list[_Candidate] = []
        for other in self._models.values():
            if other.name == model.name or self._observed[other.name] is not other:
                continue
            found += self._candidates_of(other, model, first=first, drain=drain)
        return sorted(found, key=lambda candidate: candidate.key)

    def _candidates_of(
        self, other: Model, model: Model, *, first: bool, drain: bool
    ) -> Iterable[_Candidate]:
        left = self._replicas[other.name]
        if left != other.alive or not left:
            # It has been decided on already.
            return
        if not other.blocked and not self._may_go(other, model, first=first, drain=drain):
            return
        idle = other.blocked or not other.is_in_use
        credit = self._credits.left(other.name)
        used = other.used_at or 0.0
        kept = max(other.minimum, 1)
        further = left - kept if drain or idle else 0
        if not drain and not idle and not other.queued:
            further = min(other.ready - max(other.busy_replicas, 1), left - kept)
        if further > 0:
            key = (not other.blocked, False, credit, used, other.name)
            for _ in range(further):
                yield _Candidate(other, 1, all=False, drains=not idle, key=key)
        if not other.minimum and (idle or drain):
            key = (not other.blocked, True, credit, used, other.name)
            yield _Candidate(other, left, all=True, drains=not idle, key=key)

    def _may_go(self, other: Model, model: Model, *, first: bool, drain: bool) -> bool:
        """Whether a model has been loaded, and idle, for long enough."""
        if other.starting or other.loaded_at is None:
            return False
        loaded = self._now - other.loaded_at
        residency = self._budget.minimum_residency_seconds
        if loaded < residency:
            return False
        if drain and other.is_in_use:
            # It serves at least what was queued when it was loaded: gated service, which keeps up
            # with any demand that is below the capacity.
            swap = other.load_seconds + model.load_seconds
            turn = min(max(TURN_FACTOR * swap, residency), MAX_TURN_SECONDS)
            return loaded >= turn and other.oldest_queued_seconds < loaded
        if not first:
            return other.idle_seconds(self._now) >= other.load_seconds
        return True

    def _evict(self, victim: _Candidate, model: Model) -> None:
        other = victim.model
        name = other.name
        before = self._replicas[name]
        after = before - victim.replicas
        self._replicas[name] = after
        self._coming = self._coming.plus(victim.frees)
        whose = (
            "its replicas cannot start"
            if other.blocked
            else f"in use (busy {other.busy}, queued {other.queued})"
            if victim.drains
            else f"idle for {other.idle_seconds(self._now):.0f} s"
        )
        waited = f", which has waited for {self._waited(model):.0f} s" if victim.drains else ""
        message = (
            f"{whose}, {other.load_seconds:.0f} s to load, mean demand {other.demand:.2f}; "
            f"makes room for {model.name}{waited}: {before} -> {after}"
        )
        if after == 0:
            self._credits = self._credits.evicted([name])
        self._evictions.append(Eviction(name, model.name, before, after, victim.drains, message))
        reason = BudgetReason.DRAINING if victim.drains else BudgetReason.EVICTED
        self._grants[name] = Grant(after, reason, message)

    # The next decision's memory.

    def _remember(self) -> Memory:
        granted = {}
        for name, model in self._observed.items():
            replicas = self._replicas[name]
            if replicas > model.alive:
                before, at = self._memory.granted.get(name, (0, self._now))
                renewed = model.required >= replicas or before != replicas
                granted[name] = (replicas, self._now if renewed else at)
        alive_at = {
            name: self._now if model.alive else self._memory.alive_at[name]
            for name, model in self._models.items()
            if model.alive or name in self._memory.alive_at
        }
        failed = {
            name
            for name, model in self._models.items()
            if model.blocked or (name in self._memory.failed and not model.ready)
        }
        return Memory(self._credits, alive_at, self._since, granted, frozenset(failed))

    def _text(self, amount: Resources) -> str:
        return describe(amount, self._limit)


def _takes_only_free_room(model: Model) -> bool:
    return model.takes_only_free_room and model.alive >= model.minimum


def _choose(candidates: Sequence[_Candidate], missing: Resources) -> list[_Candidate]:
    """Return the first candidates that free what is missing, without any that is not needed.

    Empty where all together do not.
    """
    chosen: list[_Candidate] = []
    for candidate in candidates:
        if missing.fits(_sum(each.frees for each in chosen)):
            break
        if candidate.frees.helps(missing):
            if candidate.all:
                chosen = [each for each in chosen if each.model is not candidate.model]
            chosen.append(candidate)
    if not missing.fits(_sum(each.frees for each in chosen)):
        return []
    for candidate in reversed(chosen[:]):
        rest = list(chosen)
        rest.remove(candidate)
        if missing.fits(_sum(each.frees for each in rest)):
            chosen = rest
    return chosen


def _sum(amounts: Iterable[Resources]) -> Resources:
    total = Resources()
    for amount in amounts:
        total = total.plus(amount)
    return total
