"""Discrete-event simulation of models that share a budget: slots, queues, loads and evictions."""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import ceil
from typing import Protocol

from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.resources import ONE_MODEL, Resources
from slotkeeper.scheduling.demand import DemandStatistics

_TICK_SECONDS = 1.0
"""The operator's poll."""

_IDLE_TICK_SECONDS = 5.0

_STARVED_SECONDS = 86400.0
"""After the last arrival."""


class StarvationError(Exception):
    """Requests that the policy never served."""


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """The properties of one model."""

    name: str
    cost: Resources = field(default_factory=lambda: Resources(gpus=1))
    """Of one replica."""
    slots: int = 4
    load_seconds: float = 60.0
    stop_seconds: float = 2.0
    """From the last request of a removed replica until its resources are free."""
    minimum: int = 0
    maximum: int = 1
    idle_seconds: float = 300.0
    """Without a request for so long, its own autoscaling removes its replicas."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request for one model."""

    at: float
    model: str
    service_seconds: float


class BudgetPolicy(Protocol):
    """Decides how many replicas each model may have."""

    def replicas(self, budget: Budget, models: Sequence[Model], now: float) -> Mapping[str, int]:
        """Return the maximum replicas of each model from now on."""
        ...


@dataclass(slots=True)
class BudgetResult:
    """What a policy did with a trace."""

    waits: list[float]
    """Seconds until each request got a slot, in order of arrival."""
    loads: int = 0
    load_seconds: float = 0.0
    """Total time in which replicas loaded."""
    evictions: int = 0
    """Replicas that were removed although their own autoscaling required them."""
    peak: Resources = field(default_factory=Resources)
    """The most that was occupied of each resource at one time."""
    seconds: float = 0.0
    """When the last request completed."""


@dataclass(slots=True, eq=False)
class _Replica:
    ready_at: float | None = None
    busy: int = 0
    removed: bool = False


class _ModelState:
    def __init__(self, spec: SimulatedModel) -> None:
        self.spec = spec
        self.replicas: list[_Replica] = []
        self.queue: deque[tuple[int, ModelRequest]] = deque()
        self.demand = DemandStatistics()
        self.used_at: float | None = None

    @property
    def alive(self) -> list[_Replica]:
        return [each for each in self.replicas if not each.removed]

    @property
    def busy(self) -> int:
        return sum(each.busy for each in self.replicas)

    def observe(self, now: float) -> Model:
        spec, alive = self.spec, self.alive
        ready = [each for each in alive if each.ready_at is not None]
        if self.busy or self.queue:
            self.used_at = now
        return Model(
            name=spec.name,
            cost=spec.cost,
            desired=self._desired(len(alive), now),
            minimum=spec.minimum,
            ready=len(ready),
            starting=len(alive) - len(ready),
            stopping=len(self.replicas) - len(alive),
            busy=self.busy,
            busy_replicas=sum(each.busy > 0 for each in alive),
            queued=len(self.queue),
            oldest_queued_seconds=now - self.queue[0][1].at if self.queue else 0.0,
            demand=self.demand.mean(now) or 0.0,
            load_seconds=spec.load_seconds,
            loaded_at=max((each.ready_at or 0.0 for each in ready), default=None),
            used_at=self.used_at,
        )

    def _desired(self, alive: int, now: float) -> int:
        spec = self.spec
        demand = self.busy + len(self.queue)
        required = min(ceil(demand / spec.slots), spec.maximum)
        if alive and (self.used_at is None or now - self.used_at < spec.idle_seconds):
            required = max(required, alive)
        return max(required, spec.minimum)


class BudgetSimulation:
    """Runs a trace against a policy; each request occupies a slot for its service time.

    `delay` returns how long a model's pass takes from its decision until its replicas are created
    or removed.
    """

    def __init__(
        self,
        budget: Budget,
        models: Sequence[SimulatedModel],
        policy: BudgetPolicy,
        delay: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._budget = budget
        self._states = {spec.name: _ModelState(spec) for spec in models}
        self._policy = policy
        self._delay = delay
        self._in_pass = set[str]()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._now = 0.0
        self._remaining = 0
        self._result = BudgetResult([])

    def run(self, requests: Sequence[ModelRequest]) -> BudgetResult:
        """Simulate all requests until the last one has completed.

        Raises StarvationError.
        """
        self._result = BudgetResult([0.0] * len(requests))
        self._remaining = len(requests)
        for number, request in enumerate(requests):
            self._schedule(request.at, partial(self._arrive, number, request))
        self._schedule(0.0, self._tick)
        deadline = max((each.at for each in requests), default=0.0) + _STARVED_SECONDS
        while self._remaining:
            self._now, _, event = heapq.heappop(self._events)
            if self._now > deadline:
                raise StarvationError(f"{self._remaining} requests were never served")
            event()
            self._dispatch()
            self._decide()
        self._result.seconds = self._now
        return self._result

    def _schedule(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _tick(self) -> None:
        # Nothing else depends on the time alone but the removal of idle replicas.
        waits = any(state.queue and not state.alive for state in self._states.values())
        self._schedule(self._now + (_TICK_SECONDS if waits else _IDLE_TICK_SECONDS), self._tick)

    def _arrive(self, number: int, request: ModelRequest) -> None:
        self._states[request.model].queue.append((number, request))

    def _dispatch(self) -> None:
        for state in self._states.values():
            while state.queue:
                usable = (each for each in state.alive if each.ready_at is not None)
                replica = min(usable, key=lambda each: each.busy, default=None)
                if replica is None or replica.busy >= state.spec.slots:
                    break
                number, request = state.queue.popleft()
                self._result.waits[number] = self._now - request.at
                replica.busy += 1
                done = partial(self._complete, state, replica)
                self._schedule(self._now + request.service_seconds, done)
            state.demand.record(state.busy + len(state.queue), self._now)

    def _complete(self, state: _ModelState, replica: _Replica) -> None:
        self._remaining -= 1
        replica.busy -= 1
        state.used_at = self._now
        self._stop_if_drained(state, replica)

    def _stop_if_drained(self, state: _ModelState, replica: _Replica) -> None:
        if replica.removed and not replica.busy:
            stopped = partial(state.replicas.remove, replica)
            self._schedule(self._now + state.spec.stop_seconds, stopped)

    def _decide(self) -> None:
        models = [state.observe(self._now) for state in self._states.values()]
        allowed = self._policy.replicas(self._budget, models, self._now)
        for model in models:
            replicas = min(model.desired, allowed[model.name])
            if replicas != model.alive and model.name not in self._in_pass:
                self._in_pass.add(model.name)
                scale = partial(self._scale, model.name, replicas, model.desired)
                if delay := self._delay():
                    self._schedule(self._now + delay, scale)
                else:
                    scale()

    def _scale(self, name: str, replicas: int, desired: int) -> None:
        self._in_pass.discard(name)
        state = self._states[name]
        alive = state.alive
        for _ in range(replicas - len(alive)):
            replica = _Replica()
            state.replicas.append(replica)
            self._result.loads += 1
            loaded = partial(self._loaded, replica, self._now)
            self._schedule(self._now + state.spec.load_seconds, loaded)
        removal_order = sorted(alive, key=lambda each: (each.ready_at is not None, each.busy))
        for replica in removal_order[: max(len(alive) - replicas, 0)]:
            replica.removed = True
            self._result.evictions += replicas < desired
            self._stop_if_drained(state, replica)
        self._account()

    def _loaded(self, replica: _Replica, started: float) -> None:
        self._result.load_seconds += self._now - started
        if not replica.removed:
            replica.ready_at = self._now

    def _account(self) -> None:
        used = Resources()
        for state in self._states.values():
            used = used.plus(state.spec.cost, len(state.replicas))
            used = used.plus(ONE_MODEL, int(bool(state.replicas)))
        self._result.peak = Resources(*map(max, used, self._result.peak))
