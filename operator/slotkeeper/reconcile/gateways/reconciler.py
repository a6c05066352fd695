"""One pass over one gateway: observe, plan, apply, report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.group import GATEWAY_KIND
from slotkeeper.api.resource import InvalidSpec, Resource
from slotkeeper.desired import names
from slotkeeper.desired.gateway import manifests
from slotkeeper.desired.images import Images
from slotkeeper.kube.cluster import UNREADABLE, Cluster, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS
from slotkeeper.kube.objects import Key, child
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.gateways.budget import budget_of, budget_status
from slotkeeper.reconcile.gateways.catalog import Servers
from slotkeeper.reconcile.gateways.models import models_of, selected_by
from slotkeeper.reconcile.gateways.observed import Observed, observe
from slotkeeper.reconcile.gateways.report import report
from slotkeeper.reconcile.observe.accounts import account_uid
from slotkeeper.reconcile.observe.missing_secrets import not_found_in
from slotkeeper.reconcile.pass_steps import PassSteps
from slotkeeper.reconcile.report.conditions import Problems
from slotkeeper.reconcile.report.report import Report, invalid_report
from slotkeeper.reconcile.report.writer import StatusWriter
from slotkeeper.reconcile.state import Records, ResourceState
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError
from slotkeeper.reconcile.write.apply import apply
from slotkeeper.reconcile.write.conflicts import FieldConflicts
from slotkeeper.reconcile.write.plan import Plan, plan_changes

CONDITIONS = (ConditionType.READY, ConditionType.DEGRADED)
"""Of a gateway."""


@dataclass
class GatewayState(ResourceState):
    """One gateway's record."""

    gateway: LlamaGateway | None = None
    """As of the last pass, with the status then; None before it, and for an invalid spec."""

    @property
    @override
    def resource(self) -> Resource | None:
        return self.gateway


def gateway_records() -> Records[GatewayState]:
    """Return the records of all gateways, none yet."""
    return Records(lambda: GatewayState(conflicts=FieldConflicts(GATEWAY_KIND)))


class GatewayReconciler:
    """Makes the cluster match its LlamaGateways, one gateway a call; as `Reconciler` for servers.

    `store` is that of the gateways; `servers` those that they select.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        states: Records[GatewayState],
        servers: Servers,
        images: Images,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._states = states
        self._catalog, self._budgets = servers.catalog, servers.budgets
        self._images = images
        self._clock = clock
        self.steps = PassSteps(cluster, store, StatusWriter(cluster, store, clock.wall))
        self.enqueue: Callable[[Key], None] = lambda _: None
        """Called with a gateway whose next pass is due at once."""
        self.backend_cidrs: Sequence[str] = ()
        """Private addresses that external backends may have."""

    async def reconcile(self, key: Key) -> None:
        """Make one pass: bring the gateway to its desired state, or one step nearer.

        Raises ApiError and RetryError where the next pass has to wait.
        """
        raw = self.steps.resource(key)
        if raw is None:
            self._budgets.remove(key)
            self._forget(key)
            self.steps.on_conditions(key, ())
            return
        self._states.forget_previous(key, raw["metadata"]["uid"])
        try:
            gateway = _parse(raw)
        except InvalidSpec as error:
            await self._report_invalid(key, raw, str(error))
            return
        await self._reconcile(key, raw, gateway)

    def limit(self, key: Key) -> None:
        """Apply the budget of a gateway to the servers that it selects now.

        Where its spec is not valid, the last valid one holds.
        """
        raw = self.steps.resource(key)
        if raw is None:
            return
        try:
            gateway = _parse(raw)
        except InvalidSpec:
            return
        servers = selected_by(gateway, self._catalog.models_in(key.namespace))
        self._set_budget(key, gateway, [model.server for model in servers])

    def is_due(self, key: Key) -> bool:
        """Whether a gateway needs a pass because of the time."""
        state = self._states.find(key)
        return state is not None and state.is_due(self._clock.monotonic())

    def conflicts(self) -> int:
        """Children in conflict, of all gateways."""
        return sum(len(state.conflicts) for _, state in self._states.records())

    async def _reconcile(self, key: Key, raw: Manifest, gateway: LlamaGateway) -> None:
        state = self._states[key]
        now = self._clock.monotonic()
        observed = await self._observe(key, raw, gateway, state)
        self._track(state, observed, now)
        plan = self._plan(gateway, observed)
        plan = state.conflicts.suppress(plan, now)
        if not await self.steps.may_write(plan, raw, is_reported=observed.is_reported):
            self.enqueue(key)
            return
        result = await apply(plan, self._cluster, self._store)
        self.steps.record_writes(state, result, now)
        if result.error and not result.rejected:
            raise result.error
        changed = result.outdates_snapshot
        if state.record_rejection(result.rejected, gateway.generation, changed=changed):
            self.enqueue(key)
            return
        await self._report(key, observed, state, now)
        if result.error:
            raise result.error
        if state.unapplied:
            raise RetryError(state.unapplied.message)

    async def _observe(
        self, key: Key, raw: Manifest, gateway: LlamaGateway, state: GatewayState
    ) -> Observed:
        models = models_of(gateway, self._catalog.models_in(key.namespace))
        self._set_budget(key, gateway, models.selected)
        unlabelled = await self.steps.unlabelled(key, state)
        observed = observe(self._store, raw, gateway, models, unlabelled)
        self.steps.check_readable(observed.children, gateway)
        return observed

    def _manifests(self, gateway: LlamaGateway, uid: str = "") -> list[Manifest]:
        return manifests(gateway, self._images, uid, self.backend_cidrs)

    def _set_budget(self, key: Key, gateway: LlamaGateway, servers: Sequence[Key]) -> None:
        if budget := budget_of(gateway):
            self._budgets.set(key, budget, servers)
        else:
            self._budgets.remove(key)

    def _track(self, state: GatewayState, observed: Observed, now: float) -> None:
        """Remember what was observed."""
        state.gateway = observed.gateway
        state.unlabelled = set(observed.unlabelled)
        state.name_conflict = self.steps.name_conflict(
            observed.gateway, observed.children, lambda: self._manifests(observed.gateway)
        )
        seconds = not_found_in([*observed.pods, *observed.batches_pods], self._clock.wall())
        state.due_at = None if seconds is None else now + seconds

    def _plan(self, gateway: LlamaGateway, observed: Observed) -> Plan:
        name = names.gateway(gateway)
        uid = account_uid(name, observed.children, observed.deployment)
        desired = self._manifests(gateway, uid or "")
        if uid is None:
            # The next pass creates it. Pods without the uid would be replaced at once.
            desired = [each for each in desired if child(each) != (DEPLOYMENTS, name)]
        return plan_changes(desired, observed.children, gateway, observed.deleted_by_others)

    async def _report(self, key: Key, observed: Observed, state: GatewayState, now: float) -> None:
        problems = Problems(state.unapplied, state.conflicts.problem(now))
        budget = budget_status(self._budgets.of(key), observed.models)
        found = report(observed, problems, budget, state.events, self._clock.wall())
        raw = await self.steps.write_report(key, observed.raw, state, found)
        if raw is None:
            self.enqueue(key)
            return
        state.gateway = replace(observed.gateway, status=raw.get("status") or {})

    async def _report_invalid(self, key: Key, raw: Manifest, message: str) -> None:
        state = self._states.find(key)
        pending = state.events if state else []
        self._forget(key)
        status, events = invalid_report(raw, message, self._clock.wall(), CONDITIONS)
        await self.steps.write_invalid(key, raw, Report(status, [*pending, *events]))

    def _forget(self, key: Key) -> None:
        self._states.forget(key)
        self._store.forget(key)


def _parse(raw: Manifest) -> LlamaGateway:
    if reason := raw.get(UNREADABLE):
        raise InvalidSpec(f"the resource cannot be read: {reason}")
    return LlamaGateway.parse(raw)
