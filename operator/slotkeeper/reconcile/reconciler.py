"""One server, from what is to what should be: observe, decide, plan, apply, say."""

from collections.abc import Container
from dataclasses import dataclass, replace

from slotkeeper.api.conditions import ConditionValue
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import InvalidSpec, LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.kube.objects import Child, Key, child
from slotkeeper.reconcile.clock import Clock, ScheduleClock
from slotkeeper.reconcile.decide.blocker import permanent_in, start_blocker
from slotkeeper.reconcile.decide.replicas import (
    NOT_AUTOSCALED,
    DesiredReplicas,
    Scaling,
    desired_replicas,
    policy_of,
)
from slotkeeper.reconcile.demand.tracker import DemandTracker, addresses
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes
from slotkeeper.reconcile.observe.observed import Observed, observe
from slotkeeper.reconcile.observe.pods import Problem, is_unschedulable
from slotkeeper.reconcile.report import conditions, status
from slotkeeper.reconcile.report.events import EventContent
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot, scaling_snapshot
from slotkeeper.reconcile.report.writer import StatusWriter
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError
from slotkeeper.reconcile.write import apply_errors
from slotkeeper.reconcile.write.apply import Applied, apply
from slotkeeper.reconcile.write.conflicts import FieldConflicts
from slotkeeper.reconcile.write.deletion_cost import set_deletion_costs
from slotkeeper.reconcile.write.plan import Plan, plan_changes


@dataclass(frozen=True)
class Snapshot:
    """A server and what there is for it."""

    raw: Manifest
    server: LlamaServer
    observed: Observed


@dataclass(frozen=True)
class ServerState:
    """What is remembered of a server between two looks: small, for there may be thousands."""

    server: LlamaServer
    current: int | None
    """How many replicas the Deployment is set to."""


class Reconciler:
    """Makes the cluster as its LlamaServers say, one call a server.

    It reads the store, which may lag behind the cluster. So each write is guarded: it changes or
    deletes only the very object that was seen, and creates only where there is nothing.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        demand: DemandTracker,
        images: Images,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._demand = demand
        self._images = images
        self._clock = clock
        self._calendar = ScheduleClock(clock.wall)
        self._nodes = GpuNodes(cluster, clock.monotonic)
        self._teller = StatusWriter(cluster, store, clock.wall)
        self.fights = FieldConflicts(clock.monotonic)
        self._known: dict[Key, ServerState] = {}
        self._unlabelled: dict[Key, set[Child]] = {}
        """Children that stand there without the label by which watches show them."""
        self._due_at: dict[Key, float] = {}
        """When time alone makes what is wrong a lasting trouble."""

    @property
    def keys(self) -> list[Key]:
        """The valid servers that there are."""
        return list(self._known)

    def due(self, besides: Container[Key] = ()) -> list[Key]:
        """The servers that time has come for: those that stir, `besides` some that were looked at,
        those of which time makes another thing to say, and those with a child that is fought over
        and due."""
        now = self._clock.monotonic()
        decisions = [key for key in self._known if key not in besides and self.needs_scaling(key)]
        return decisions + [k for k, at in self._due_at.items() if at <= now] + self.fights.due()

    def status_stale(self) -> list[Key]:
        """The servers whose status shows other numbers than their balancers tell."""
        return [key for key, known in self._known.items() if self._is_outdated(key, known)]

    def needs_scaling(self, key: Key) -> bool:
        """Whether there is another decision on a server's replicas, by its numbers or by time."""
        known = self._known.get(key)
        return known is not None and self._decides_anew(key, known)

    def no_longer_wanted(self, key: Key) -> bool:
        """Whether nobody asks any more for the replicas that the API server refused."""
        known = self._known.get(key)
        if known is None or not apply_errors.replicas_were_desired(known.server):
            return False
        return self._wanted(key, known.server, known.current).replicas == 0

    def scaling_snapshot(self, key: Key) -> ScalingSnapshot | None:
        """What was last decided on a server's replicas; None where nothing is known of it."""
        if known := self._known.get(key):
            return scaling_snapshot(known.server, self._demand.latest(key), self._calendar.now())
        return None

    def scaling_snapshots(self) -> list[tuple[Key, ScalingSnapshot | None]]:
        """What was last decided on each server."""
        return [(key, self.scaling_snapshot(key)) for key in self.keys]

    async def reconcile(self, key: Key) -> None:
        """Bring one server to where it should be, or a step nearer.

        Raises ApiError and TryAgainError where it must be called again after a while. Else every
        further step is brought by an event.
        """
        seen = await self._observe(key)
        if seen is None:
            return
        scaling, plan = self._decide(key, seen)
        plan = self.fights.suppress(key, plan)
        refused: Problem | None = None
        error: Exception | None = None
        happened: list[EventContent] = []
        if plan:
            had_its_own = "observedGeneration" in seen.server.status
            if had_its_own and plan.creates and not await self._is_there(seen.raw):
                # The store knows it now.
                await self.reconcile(key)
                return
            if scaling.change < 0 and not seen.server.spec.workers:
                pods = seen.observed.replica_pods
                reading = await self._demand.fetch_now(key)
                await set_deletion_costs(self._cluster, self._store, pods, reading)
            try:
                plan, applied = await self._carry_out(key, plan)
                happened = self.fights.record(key, applied.corrected, applied.changed_on_write)
                self._demand.scaled(key, scaling.change)
            except ApiError as refusal:
                if not apply_errors.is_permanent(refusal):
                    raise
                refused = Problem(Reason.APPLY_REJECTED, refusal.message)
                error = refusal
                # It was not carried out, however often it is tried.
                scaling = replace(scaling, before=scaling.desired.replicas)
            seen = await self._observe(key)
            if seen is None:
                return
        if not error and (refused := apply_errors.name_conflict(plan, seen.server)):
            error = RetryError(refused.message)
        fought = self.fights.problem(key)
        seen = replace(seen, observed=replace(seen.observed, rejected=refused, conflict=fought))
        await self._report(key, seen, scaling, happened)
        await self._publish_blocker(key, seen)
        if error:
            raise error

    async def _carry_out(self, key: Key, plan: Plan) -> tuple[Plan, Applied]:
        """Apply the plan; what is left of it, should something have been hidden from it."""
        applied = await apply(plan, self._cluster, self._store)
        if not applied.unlabelled:
            return plan, applied
        self._unlabelled.setdefault(key, set()).update(applied.unlabelled)
        seen = await self._observe(key)
        if seen is None:
            return Plan(), applied
        _, rest = self._decide(key, seen)
        return rest, applied + await apply(rest, self._cluster, self._store)

    async def _publish_blocker(self, key: Key, seen: Snapshot) -> None:
        """Have the balancers tell, or no longer tell, why a child could not be made."""
        if seen.observed.rejected == apply_errors.last_apply_error(seen.server):
            return
        now = await self._observe(key)
        if now is not None:
            _, plan = self._decide(key, now)
            await apply(plan.only(LEASES), self._cluster, self._store)

    async def _is_there(self, raw: Manifest) -> bool:
        """Whether the server that the store shows still is; if not, the store learns it.

        The garbage collector takes the children of one that went, while the watch that should tell
        of it may be broken: it would all be made again, and taken again.
        """
        metadata = raw["metadata"]
        found = await self._cluster.get(LLAMA_SERVERS, metadata["namespace"], metadata["name"])
        if found and found["metadata"]["uid"] == metadata["uid"]:
            return True
        self._store.confirm_deleted(raw)
        if found:
            self._store.put(found)
        return False

    async def _observe(self, key: Key) -> Snapshot | None:
        """What there is; None where there is nothing to do: gone, going, or invalid."""
        raw = self._store.server(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            # The garbage collector takes the children: they are owned.
            self._forget(key)
            return None
        try:
            server = LlamaServer.parse(raw)
        except InvalidSpec as error:
            self._forget(key)
            found = conditions.invalid(str(error))
            said = status.invalid(raw, found, now=self._clock.wall())
            happened = status.event_contents(raw.get("status") or {}, found, None)
            await self._teller.write(raw, said, happened)
            return None
        observed = observe(self._store, server, await self._find_hidden(key))
        observed = replace(observed, rejected=apply_errors.last_apply_error(server))
        self._due_at.pop(key, None)
        if (seconds := permanent_in(server, observed, self._clock.wall())) is not None:
            self._due_at[key] = self._clock.monotonic() + seconds
        pods = [*observed.worker_pods, *observed.replica_pods]
        if server.spec.gpu.compute_arch and any(map(is_unschedulable, pods)):
            arches = await self._nodes.compute_arches()
            observed = replace(observed, compute_arches=arches)
        self._known[key] = ServerState(server, observed.current)
        policy = policy_of(server, self._calendar.now())
        self._demand.track(key, addresses(observed.balancer_pods), policy)
        return Snapshot(raw, server, observed)

    async def _find_hidden(self, key: Key) -> dict[Child, Manifest]:
        found = {}
        for kind, name in self._unlabelled.pop(key, ()):
            item = await self._cluster.get(kind, key.namespace, name)
            if item is None:
                continue
            if (item["metadata"].get("labels") or {}).get(names.SERVER_LABEL) == key.name:
                self._store.put(item)
            else:
                found[kind, name] = item
        if found:
            self._unlabelled[key] = set(found)
        return found

    def _forget(self, key: Key) -> None:
        self._known.pop(key, None)
        self._unlabelled.pop(key, None)
        self._due_at.pop(key, None)
        self._demand.forget(key)
        self._store.forget(key)
        self.fights.forget(key)

    def _wanted(self, key: Key, server: LlamaServer, current: int | None) -> DesiredReplicas:
        now = self._clock.monotonic()
        today = self._calendar.now()
        return desired_replicas(
            server, current, self._demand.scaling_input(key), now=now, today=today
        )

    def _decide(self, key: Key, seen: Snapshot) -> tuple[Scaling, Plan]:
        decision = self._wanted(key, seen.server, seen.observed.current)
        scaling = Scaling(decision, seen.observed.current, self._demand.is_warming_up(key))
        today = self._clock.wall()
        blocked = start_blocker(seen.server, seen.observed, wanted=decision.replicas, today=today)
        desired = manifests(seen.server, decision.replicas, self._images, blocked)
        lost = self._store.deleted_by_others(key, seen.server.uid)
        plan = plan_changes(desired, seen.observed.children, seen.server.uid, lost)
        replicas = seen.observed.replicas
        if replicas and ("spec", "replicas") in plan.drifted.get(child(replicas), ()):
            # The decision stands as it was: what somebody else set is no scaling.
            scaling = replace(scaling, before=decision.replicas)
        return scaling, plan

    async def _report(
        self, key: Key, seen: Snapshot, scaling: Scaling, happened: list[EventContent]
    ) -> None:
        found: list[ConditionValue] = conditions.condition_values(
            seen.server, seen.observed, scaling
        )
        said = status.status(
            seen.server,
            seen.observed,
            found,
            scaling,
            self._demand.latest(key),
            now=self._clock.wall(),
        )
        happened = [*happened, *status.event_contents(seen.server.status, found, scaling)]
        raw = await self._teller.write(seen.raw, said, happened)
        self._known[key] = ServerState(LlamaServer.parse(raw), seen.observed.current)

    def _is_outdated(self, key: Key, known: ServerState) -> bool:
        reading = self._demand.latest(key)
        shown = known.server.status
        if not reading:
            return False
        numbers = {"total": reading.sample.total_slots, "busy": reading.sample.busy_slots}
        return numbers != shown.get("slots") or reading.sample.queued != shown.get("queued")

    def _decides_anew(self, key: Key, known: ServerState) -> bool:
        shown = known.server.status
        decision = self._wanted(key, known.server, known.current)
        if decision.reason in NOT_AUTOSCALED or self._demand.is_warming_up(key):
            return False
        # The sentence holds the age of the oldest request: new each second, and no news.
        return decision.replicas != known.current or decision.reason != shown.get(
            "scaling", {}
        ).get("reason")
