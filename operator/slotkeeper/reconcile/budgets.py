"""The budgets of gateways: how many replicas each of their servers may have now."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.names import COMPONENT_LABEL, Component
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.clock import Clock, Moment
from slotkeeper.reconcile.decide.blocker import published_blocker
from slotkeeper.reconcile.decide.budget_model import budget_model, load_seconds, with_requests
from slotkeeper.reconcile.decide.replicas import DesiredReplicas
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.observe.observed import observe
from slotkeeper.reconcile.observe.own_pods import own_pods, workloads
from slotkeeper.reconcile.state import ServerState, States
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.scaling.budget.decision import BudgetPlan, BudgetReason, Grant, Memory
from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.planner import plan

HISTORY_LENGTH = 10
"""Decisions of a budget that are kept."""

DEFAULT_LOAD_SECONDS = 60.0
"""Before a replica of a server has been seen to become ready."""

OwnReplicas = Callable[[ServerState, LlamaServer, Moment], DesiredReplicas]
"""Returns the replicas that a server requires without a budget."""


@dataclass(frozen=True)
class BudgetChange:
    """A change of the replicas that a server may have."""

    at: datetime
    server: str
    before: int
    after: int
    message: str


@dataclass(frozen=True)
class _Stored:
    """What the store shows of a server's replicas, and of which revision that is."""

    revision: tuple[int, str, int]
    model: Model
    """Without requests."""
    load_seconds: float | None
    blocked: bool
    """Whether the balancers' Role has a start blocker."""


@dataclass
class _Usage:
    """What is remembered of one server."""

    loaded_at: float | None = None
    used_at: float | None = None
    load_seconds: float = DEFAULT_LOAD_SECONDS
    last: Model | None = None
    """As it was observed last."""
    stored: _Stored | None = None
    """Decoding all objects of a server takes a millisecond, and they change seldom."""


@dataclass
class GatewayBudget:
    """The budget of one gateway, and its last decision."""

    budget: Budget
    servers: Sequence[Key]
    last: BudgetPlan | None = None
    """None before the first decision: until then no server gets more replicas."""
    history: deque[BudgetChange] = field(default_factory=lambda: deque(maxlen=HISTORY_LENGTH))
    """Newest first."""
    usage: dict[Key, _Usage] = field(default_factory=dict)


class Budgets:
    """Decides on the replicas of all servers that share a budget, once after each poll.

    A server's own pass reads its grant: it never writes more replicas than that. All is kept in
    memory, and rebuilt from the cluster after a restart.
    """

    def __init__(
        self, store: Store, states: States, clock: Clock, own_replicas: OwnReplicas
    ) -> None:
        self._store = store
        self._states = states
        self._clock = clock
        self._own_replicas = own_replicas
        self._gateways: dict[Key, GatewayBudget] = {}
        self._gateway_of: dict[Key, Key] = {}
        self.isolation = Isolation("budget")

    def set(self, gateway: Key, budget: Budget, servers: Sequence[Key]) -> None:
        """Limit these servers, in the namespace of the gateway, from now on.

        A server in several budgets obeys the one that limited it first.
        """
        known = self._gateways.get(gateway)
        self._release(gateway)
        own = [key for key in servers if key not in self._gateway_of]
        self._gateway_of |= dict.fromkeys(own, gateway)
        self._gateways[gateway] = (
            replace(known, budget=budget, servers=own) if known else GatewayBudget(budget, own)
        )

    def remove(self, gateway: Key) -> None:
        """The gateway has no budget any more, or is deleted."""
        self._release(gateway)
        self._gateways.pop(gateway, None)

    def of(self, gateway: Key) -> GatewayBudget | None:
        """The budget of a gateway, with its last decision, for its status."""
        return self._gateways.get(gateway)

    def grant(self, server: Key) -> Grant | None:
        """How many replicas a server may have; None where no budget limits it."""
        gateway = self._gateway_of.get(server)
        if gateway is None:
            return None
        last = self._gateways[gateway].last
        if last and server.name in last.grants:
            return last.grants[server.name]
        state = self._states.find(server)
        current = (state.current if state else None) or 0
        return Grant(current, BudgetReason.WAITING, "not decided yet")

    def waits(self) -> list[tuple[Key, float]]:
        """Each server without a replica that has no room for one, and for how many seconds it has
        required one. For the metrics, in another thread."""
        now = self._clock.monotonic()
        found = []
        for gateway, budget in list(self._gateways.items()):
            if last := budget.last:
                since = last.memory.wanted_since
                found += [
                    (Key(gateway.namespace, name), max(now - since[name], 0.0))
                    for name in last.waiting
                    if name in since
                ]
        return found

    def update(self) -> list[Key]:
        """Decide anew, for all gateways. Returns those whose `used` or `history` has changed."""
        changed = []
        for key, gateway in list(self._gateways.items()):
            with self.isolation(key):
                before = gateway.last and gateway.last.used, next(iter(gateway.history), None)
                self._decide(gateway)
                after = gateway.last and gateway.last.used, next(iter(gateway.history), None)
                if after != before:
                    changed.append(key)
        return changed

    def _release(self, gateway: Key) -> None:
        self._gateway_of = {
            server: owner for server, owner in self._gateway_of.items() if owner != gateway
        }

    def _decide(self, gateway: GatewayBudget) -> None:
        moment = Moment(self._clock.monotonic(), self._clock.wall(), self._clock.wall())
        models = self._observe_all(gateway, moment)
        if models is None:
            return
        before = gateway.last
        memory = before.memory if before else Memory()
        gateway.last = plan(gateway.budget, models, memory, moment.monotonic)
        for model in models:
            was = before.grants.get(model.name) if before else None
            grant = gateway.last.grants[model.name]
            previous = was.replicas if was else model.alive
            if grant.replicas != previous:
                gateway.history.appendleft(
                    BudgetChange(moment.wall, model.name, previous, grant.replicas, grant.message)
                )

    def _observe_all(self, gateway: GatewayBudget, moment: Moment) -> list[Model] | None:
        """The servers of a gateway, and what deleted ones still occupy; None while any of them has
        had no pass."""
        models = []
        own = frozenset(gateway.servers)
        for key in dict.fromkeys([*gateway.servers, *gateway.usage]):
            usage = gateway.usage.setdefault(key, _Usage())
            state = self._states.find(key)
            if key in own and state and state.server:
                usage.last = self._observe(key, state, state.server, usage, moment)
            elif self._is_deleted(key):
                usage.last = self._deleted(key, usage.last)
            elif key not in own:
                usage.last = None
            elif usage.last:
                # Its spec is invalid now: nothing changes its replicas.
                usage.last = replace(usage.last, minimum=usage.last.alive)
            elif not self._is_invalid(key):
                # It has had no pass yet: what it occupies is not known.
                return None
            if usage.last:
                models.append(usage.last)
            elif key not in own:
                del gateway.usage[key]
        return models

    def _deleted(self, key: Key, last: Model | None) -> Model | None:
        """A deleted server occupies its resources until its pods are deleted, too."""
        component = Component.REPLICA.value
        pods = sum(
            pod["metadata"]["labels"].get(COMPONENT_LABEL) == component
            for pod in self._store.pods(key)
        )
        return Model(key.name, last.cost, stopping=pods) if last and pods else None

    def _is_deleted(self, key: Key) -> bool:
        raw = self._store.resource(key)
        return raw is None or "deletionTimestamp" in raw["metadata"]

    def _is_invalid(self, key: Key) -> bool:
        try:
            LlamaServer.parse(self._store.resource(key) or {})
        except (InvalidSpec, KeyError):
            return True
        return False

    def _observe(
        self, key: Key, state: ServerState, server: LlamaServer, usage: _Usage, moment: Moment
    ) -> Model:
        now = moment.monotonic
        revision = (self._store.revision(key), server.uid, server.generation)
        stored = usage.stored
        if stored is None or stored.revision != revision:
            stored = usage.stored = self._read(key, server, revision)
        model = with_requests(stored.model, state.demand.latest(now))
        if model.is_in_use:
            usage.used_at = now
        if not model.ready:
            usage.loaded_at = None
        elif usage.loaded_at is None:
            usage.loaded_at = now
        usage.load_seconds = stored.load_seconds or usage.load_seconds
        own = self._own_replicas(state, server, moment)
        return replace(
            model,
            desired=own.replicas,
            minimum=min(own.minimum, own.replicas),
            load_seconds=usage.load_seconds,
            loaded_at=usage.loaded_at,
            used_at=usage.used_at,
            blocked=bool(model.starting and stored.blocked),
        )

    def _read(self, key: Key, server: LlamaServer, revision: tuple[int, str, int]) -> _Stored:
        observed = observe(self._store, server, {})
        terminating = own_pods(
            self._store,
            server,
            observed.children,
            workloads(server),
            observed.replica_sets,
            terminating=True,
        )
        return _Stored(
            revision,
            budget_model(key.name, server, observed, terminating[Component.REPLICA]),
            load_seconds(observed.replica_pods),
            published_blocker(server, observed) is not None,
        )
