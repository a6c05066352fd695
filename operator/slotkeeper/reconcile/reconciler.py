"""One pass over one server: observe, decide, plan, apply, report."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.cluster import UNREADABLE, Cluster, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS
from slotkeeper.kube.objects import Child, Key, child, owned
from slotkeeper.reconcile.clock import Clock, Moment, ScheduleClock
from slotkeeper.reconcile.decide.decision import Decision, decide
from slotkeeper.reconcile.decide.replicas import (
    NOT_AUTOSCALED,
    DesiredReplicas,
    Scaling,
    desired_replicas,
)
from slotkeeper.reconcile.demand.poller import DemandPoller, addresses
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes
from slotkeeper.reconcile.observe.missing_secrets import not_found_in
from slotkeeper.reconcile.observe.name_conflict import foreign, name_conflict
from slotkeeper.reconcile.observe.observed import Invalid, Observed, Snapshot, account_uid, observe
from slotkeeper.reconcile.observe.pods import is_unschedulable
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.conditions import Problems
from slotkeeper.reconcile.report.events import adopted, drift_corrected, scaled
from slotkeeper.reconcile.report.report import invalid_report, report
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot, scaling_snapshot
from slotkeeper.reconcile.report.serving import pod_readiness, serving
from slotkeeper.reconcile.report.status import is_reported, is_stale
from slotkeeper.reconcile.report.writer import StatusWriter
from slotkeeper.reconcile.state import Rejection, ServerState, States
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError
from slotkeeper.reconcile.write.apply import Result, apply
from slotkeeper.reconcile.write.deletion_cost import set_deletion_costs
from slotkeeper.reconcile.write.plan import Plan, plan_changes


class Reconciler:
    """Makes the cluster match its LlamaServers, one server a call.

    Level-triggered: a pass that has written anything ends there, and the next one observes the
    result and reports it. The store may lag behind the cluster, so that each write has a
    precondition: it changes only the object that was observed, and creates only where none exists.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        states: States,
        poller: DemandPoller,
        images: Images,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._states = states
        self._poller = poller
        self._images = images
        self._clock = clock
        self._schedule_clock = ScheduleClock(clock)
        self._nodes = GpuNodes(cluster, clock.monotonic)
        self._writer = StatusWriter(cluster, store, clock.wall)
        self.enqueue: Callable[[Key], None] = lambda _: None
        """Called with a server whose next pass is due at once."""
        self.on_corrected: Callable[[str], None] = lambda _: None
        """Called with the kind of each child whose drift was corrected."""
        self.on_conditions: Callable[[Key, Sequence[Manifest]], None] = lambda *_: None
        """Called with a server's conditions when they are reported; without any, it is deleted."""
        self.isolation = Isolation("check between passes")

    async def reconcile(self, key: Key) -> None:
        """Make one pass: bring the server to its desired state, or one step nearer.

        Raises ApiError and RetryError where the next pass has to wait. Otherwise the next pass is
        caused by `enqueue` or by a change that a watch shows.
        """
        snapshot = await self._observe(key)
        if snapshot is None:
            # Deleted: the garbage collector deletes the children, which are owned.
            self._forget(key)
            self.on_conditions(key, ())
            return
        self._forget_previous(key, snapshot.raw)
        if isinstance(snapshot, Invalid):
            await self._report_invalid(key, snapshot)
            return
        moment = self._schedule_clock.now()
        state = self._states[key]
        self._track(state, snapshot, moment)
        decision = decide(
            snapshot,
            self._desired(state, snapshot.server, moment),
            moment.wall,
            warming_up=state.demand.is_warming_up(moment.monotonic),
            rejected=state.unapplied,
            attempted=state.attempted,
        )
        plan = self._plan(snapshot, decision)
        if _replicas_drifted(plan, snapshot.observed):
            # A correction of what others set is no scaling.
            decision = decision.unscaled()
        plan = state.conflicts.suppress(plan, moment.monotonic)
        depends_on_existence = (plan.creates and snapshot.is_reported) or plan.adopts
        if depends_on_existence and not await self._is_current(snapshot.raw):
            self.enqueue(key)
            return
        result = await self._apply(plan, snapshot, decision, state)
        self._record_writes(state, snapshot, decision, result, moment)
        if result.error and not result.rejected:
            raise result.error
        if self._advance(state, snapshot, decision, result):
            self.enqueue(key)
            return
        if decision.keeps_blocker:
            # Neither withdrawn nor reported before the balancers' first report: poll again.
            state.due_at = moment.monotonic
        else:
            await self._report(state, snapshot, decision, moment)
        if result.error:
            raise result.error
        if state.unapplied:
            raise RetryError(state.unapplied.message)

    # Between passes.

    def is_due(self, key: Key, *, scaling: bool = True) -> bool:
        """Whether a server needs a pass because of the time, or (`scaling`) of a new decision on
        its replicas."""
        state = self._states.find(key)
        if state is None:
            return False
        now = self._clock.monotonic()
        return (
            (state.due_at is not None and state.due_at <= now)
            or state.conflicts.is_due(now)
            or self._serving_changed(state)
            or (scaling and self.needs_scaling(key))
        )

    def needs_scaling(self, key: Key) -> bool:
        """Whether the decision on a server's replicas differs from the last one."""
        state = self._states.find(key)
        if state is None or state.server is None:
            return False
        moment = self._schedule_clock.now()
        if state.demand.is_warming_up(moment.monotonic):
            return False
        desired = self._desired(state, state.server, moment)
        if desired.reason in NOT_AUTOSCALED:
            return False
        # The message contains the age of the oldest request, which changes each second.
        last = state.server.status.get("scaling", {}).get("reason")
        return desired.replicas != state.current or desired.reason != last

    def no_longer_desired(self, key: Key) -> bool:
        """Whether the replicas that the API server rejected are not desired any more."""
        state = self._states.find(key)
        if state is None or state.server is None or state.unapplied is None:
            return False
        if not state.server.status.get("scaling", {}).get("desiredReplicas"):
            return False
        return self._desired(state, state.server, self._schedule_clock.now()).replicas == 0

    def is_status_stale(self, key: Key) -> bool:
        """Whether a server's status shows other numbers than its balancers' last report."""
        state = self._states.find(key)
        if state is None or state.server is None:
            return False
        demand = state.demand.latest(self._clock.monotonic())
        if demand and demand.unresponsive != state.unresponsive:
            return True
        return is_stale(state.server, demand)

    def scaling_snapshot(self, key: Key) -> ScalingSnapshot | None:
        """The last decision on a server's replicas; None without a record of the server."""
        state = self._states.find(key)
        return self._scaling_snapshot(state) if state else None

    def scaling_snapshots(self) -> list[tuple[Key, ScalingSnapshot | None]]:
        """The last decision on each server's replicas."""
        snapshots = []
        for key, state, _ in self._states.servers():
            with self.isolation(key):
                snapshots.append((key, self._scaling_snapshot(state)))
        return snapshots

    def conflicts(self) -> int:
        """Children in conflict, of all servers."""
        return sum(len(state.conflicts) for _, state, _ in self._states.servers())

    # The steps of a pass.

    async def _observe(self, key: Key) -> Snapshot | Invalid | None:
        """Read what exists; None for a server that is deleted or being deleted."""
        raw = self._store.server(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        if reason := raw.get(UNREADABLE):
            return Invalid(raw, f"the resource cannot be read: {reason}")
        try:
            server = LlamaServer.parse(raw)
        except InvalidSpec as error:
            return Invalid(raw, str(error))
        observed = observe(self._store, server, await self._unlabelled(key))
        for (kind, name), item in observed.children.items():
            if UNREADABLE in item and owned(item, server.uid):
                raise RetryError(f"{kind.kind} {name} cannot be read: {item[UNREADABLE]}")
        state = self._states.find(key)
        demand = state.demand.latest(self._clock.monotonic()) if state else None
        if demand and demand.unresponsive:
            observed = replace(observed, unresponsive=demand.unresponsive)
        pods = [*observed.worker_pods, *observed.replica_pods]
        if server.spec.gpu.compute_arch and any(map(is_unschedulable, pods)):
            arches = await self._nodes.compute_arches()
            observed = replace(observed, compute_arches=arches)
        return Snapshot(raw, server, observed)

    async def _unlabelled(self, key: Key) -> dict[Child, Manifest]:
        """The children that no watch shows, read from the API server.

        Raises RetryError for a child that the operator has deleted and that still exists.
        """
        state = self._states.find(key)
        found = {}
        for kind, name in state.unlabelled if state else ():
            item = await self._cluster.get(kind, key.namespace, name)
            if item is None:
                continue
            if (item["metadata"].get("labels") or {}).get(names.SERVER_LABEL) == key.name:
                self._store.put(item)
                if (kind, name) not in self._store.children(key):
                    raise RetryError(f"{kind.kind} {name} is still terminating")
            else:
                found[kind, name] = item
        return found

    def _track(self, state: ServerState, snapshot: Snapshot, moment: Moment) -> None:
        """Remember what was observed."""
        server, observed = snapshot.server, snapshot.observed
        state.server = server
        state.current = observed.current
        state.unlabelled = set(observed.unlabelled)
        if state.unreported and is_reported(server, state.unreported):
            # The status was written, and the response to it lost.
            state.unreported = None
        state.name_conflict = self._name_conflict(server, observed)
        policy = state.policy_at(moment.scheduled)
        state.demand.track(addresses(observed.balancer_pods), policy)
        state.pods = pod_readiness(observed)
        pods = [*observed.replica_pods, *observed.worker_pods, *observed.balancer_pods]
        seconds = not_found_in(pods, moment.wall)
        due = [] if seconds is None else [moment.monotonic + seconds]
        if policy and state.demand.is_warming_up(moment.monotonic):
            # Conditions are kept until then, and no change may follow.
            due.append(state.demand.warm_up_ends)
        state.due_at = min(due, default=None)

    def _name_conflict(self, server: LlamaServer, observed: Observed) -> Problem | None:
        if not foreign(observed.children, server):
            return None
        desired = map(child, manifests(server, 0, self._images))
        return name_conflict(server, observed.children, desired)

    def _plan(self, snapshot: Snapshot, decision: Decision) -> Plan:
        server, observed = snapshot.server, snapshot.observed
        replicas = decision.scaling.desired.replicas
        uid = account_uid(server, observed)
        desired = manifests(server, replicas, self._images, decision.blocker, uid or "")
        if uid is None:
            # The next pass creates it. Pods without the uid would be replaced at once.
            balancers = (DEPLOYMENTS, names.balancer(server))
            desired = [manifest for manifest in desired if child(manifest) != balancers]
        return plan_changes(desired, observed.children, server, observed.deleted_by_others)

    async def _is_current(self, raw: Manifest) -> bool:
        """Whether the server is as the store shows it; if not, the store is brought up to date.

        The garbage collector deletes the children of a server that is deleted or being deleted,
        while the watch that would show it may be broken: all of them would be created, and deleted
        again. So would children that it was to leave as orphans, if they were adopted.
        """
        metadata = raw["metadata"]
        found = await self._cluster.get(LLAMA_SERVERS, metadata["namespace"], metadata["name"])
        if found and found["metadata"]["uid"] == metadata["uid"]:
            return not self._store.put(found)
        self._store.confirm_deleted(raw)
        if found:
            self._store.put(found)
        return False

    async def _apply(
        self, plan: Plan, snapshot: Snapshot, decision: Decision, state: ServerState
    ) -> Result:
        if not plan:
            return Result()
        if decision.scaling.change < 0 and not snapshot.server.spec.workers:
            demand = await self._poller.fetch_now(state.demand)
            pods = snapshot.observed.replica_pods
            await set_deletion_costs(self._cluster, self._store, pods, demand)
        return await apply(plan, self._cluster, self._store)

    def _record_writes(
        self,
        state: ServerState,
        snapshot: Snapshot,
        decision: Decision,
        result: Result,
        moment: Moment,
    ) -> None:
        """Remember what was written, also where the plan failed later."""
        now = moment.monotonic
        announced = state.conflicts.record(result.corrected, result.changed_on_write, now)
        state.events += map(drift_corrected, announced)
        if result.adopted:
            state.events.append(adopted(result.adopted))
        for drift in result.corrected:
            self.on_corrected(drift.child[0].kind)
        state.unlabelled |= result.unlabelled
        scaling, replicas = decision.scaling, snapshot.observed.replicas
        if scaling.scaled and replicas and child(replicas) in result.applied:
            state.demand.scaled(scaling.change, now)
            state.events.append(scaled(scaling))
            before = state.unreported.before if state.unreported else scaling.before
            state.unreported = replace(scaling, before=before)

    def _advance(
        self, state: ServerState, snapshot: Snapshot, decision: Decision, result: Result
    ) -> bool:
        """Remember the outcome of a plan; whether the next pass is due at once."""
        generation = snapshot.server.generation
        before = state.rejection
        now = Rejection(result.rejected, generation) if result.rejected else None
        attempted = state.attempted or not decision.scaling.awaits_report
        withdraws = decision.keeps_blocker and attempted
        state.rejection = before if before and now and now.is_same(before) else now
        state.attempted = attempted
        if now and before and before.generation == generation:
            # Only the back-off brings the next pass, though a new message may have been written to
            # the Role: it may be another one at each try.
            return False
        return result.outdates_snapshot or now != before or withdraws

    async def _report(
        self, state: ServerState, snapshot: Snapshot, decision: Decision, moment: Moment
    ) -> None:
        scaling = _reported_scaling(state, decision)
        demand = state.demand.latest(moment.monotonic)
        state.unresponsive = demand.unresponsive if demand else ()
        state.serving = serving(pod_readiness(snapshot.observed), state.demand, moment)
        conflict = state.conflicts.problem(moment.monotonic)
        problems = Problems(state.unapplied, conflict, state.serving)
        status, events = report(snapshot, scaling, problems, demand, state.events, moment.wall)
        failed = await self._writer.create_events(snapshot.raw, events)
        # An event is created once, also where the status has to be written again.
        state.events = [event for event in state.events if event in failed]
        raw = await self._writer.write_status(snapshot.raw, status)
        key = Key(snapshot.server.namespace, snapshot.server.name)
        if raw is None:
            # No watch event follows: the store has dropped the server already.
            self.enqueue(key)
            return
        self.on_conditions(key, status["conditions"])
        state.events.clear()
        state.unreported = None
        state.server = replace(snapshot.server, status=raw.get("status") or {})

    async def _report_invalid(self, key: Key, snapshot: Invalid) -> None:
        state = self._states.find(key)
        pending = state.events if state else []
        self._forget(key)
        status, events = invalid_report(snapshot.raw, snapshot.message, self._clock.wall())
        await self._writer.create_events(snapshot.raw, [*pending, *events])
        if await self._writer.write_status(snapshot.raw, status):
            self.on_conditions(key, status["conditions"])

    def _forget(self, key: Key) -> None:
        self._states.forget(key)
        self._store.forget(key)

    def _forget_previous(self, key: Key, raw: Manifest) -> None:
        state = self._states.find(key)
        if state and state.server and state.server.uid != raw["metadata"]["uid"]:
            # Deleted and created again between two passes.
            self._states.forget(key)

    def _desired(self, state: ServerState, server: LlamaServer, moment: Moment) -> DesiredReplicas:
        policy = state.policy_at(moment.scheduled)
        demand = state.demand.scaling_input()
        return desired_replicas(server, policy, state.current, demand, moment.monotonic)

    def _serving_changed(self, state: ServerState) -> bool:
        """Whether the balancers' reports show a problem, or its end, that the status lacks."""
        if state.pods is None:
            return False
        found = serving(state.pods, state.demand, self._schedule_clock.now())
        before = state.serving.problem
        return found.known and (found.problem and found.problem.reason) != (
            before and before.reason
        )

    def _scaling_snapshot(self, state: ServerState) -> ScalingSnapshot | None:
        if state.server is None:
            return None
        moment = self._schedule_clock.now()
        demand = state.demand.latest(moment.monotonic)
        return scaling_snapshot(state.server, demand, state.policy_at(moment.scheduled))


def _reported_scaling(state: ServerState, decision: Decision) -> Scaling:
    unreported = state.unreported
    if unreported and unreported.desired.replicas == decision.scaling.desired.replicas:
        return unreported
    # A decision that cannot be written is no change, however often it is tried.
    return (decision.unscaled() if state.unapplied else decision).scaling


def _replicas_drifted(plan: Plan, observed: Observed) -> bool:
    replicas = observed.replicas
    return replicas is not None and ("spec", "replicas") in plan.drifted.get(child(replicas), ())
