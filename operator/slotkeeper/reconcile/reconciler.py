"""One pass over one server: observe, decide, plan, apply, report."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from slotkeeper.api.conditions import ConditionType, condition
from slotkeeper.api.problem_reasons import ACCELERATOR_REASONS
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection, names, prefetch, prompt_cleanup
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.desired.images import Images
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.cluster import UNREADABLE, Cluster
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS
from slotkeeper.kube.objects import Key, child
from slotkeeper.reconcile import inspections
from slotkeeper.reconcile.budgets import Budgets
from slotkeeper.reconcile.clock import Clock, Moment, ScheduleClock
from slotkeeper.reconcile.decide.decision import Decision, decide
from slotkeeper.reconcile.decide.memory import without_workloads
from slotkeeper.reconcile.decide.prefetch import Prefetch, decide_prefetch
from slotkeeper.reconcile.decide.replicas import (
    NOT_AUTOSCALED,
    DesiredReplicas,
    Scaling,
    desired_replicas,
    within_grant,
)
from slotkeeper.reconcile.demand.poller import DemandPoller, addresses
from slotkeeper.reconcile.downloads.tracker import DownloadSample
from slotkeeper.reconcile.gpus import Gpus
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.observe.accelerators import started_containers
from slotkeeper.reconcile.observe.downloads import progress_addresses
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes
from slotkeeper.reconcile.observe.missing_secrets import not_found_in
from slotkeeper.reconcile.observe.node_cache import not_allowed
from slotkeeper.reconcile.observe.observed import Invalid, Observed, Snapshot, account_uid, observe
from slotkeeper.reconcile.observe.prefetch import Phase, phase, retry_in
from slotkeeper.reconcile.observe.terminating import released_in
from slotkeeper.reconcile.pass_steps import PassSteps
from slotkeeper.reconcile.prompt_folders import PromptFolders
from slotkeeper.reconcile.report.accelerators import accepted_advisories, build_problem
from slotkeeper.reconcile.report.conditions import Problems
from slotkeeper.reconcile.report.events import prefetch_started, scaled
from slotkeeper.reconcile.report.report import Report, invalid_report, report
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot, scaling_snapshot
from slotkeeper.reconcile.report.serving import pod_readiness, serving
from slotkeeper.reconcile.report.status import is_reported, is_stale
from slotkeeper.reconcile.report.writer import StatusWriter
from slotkeeper.reconcile.state import ServerState, States
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
        self.downloads = NO_SETTINGS
        """What the chart sets for the downloads of all servers."""
        self._clock = clock
        self._schedule_clock = ScheduleClock(clock)
        self._gpus = Gpus(GpuNodes(cluster, clock.monotonic), images, clock.wall)
        self.budgets = Budgets(store, states, clock, self._without_budget)
        """The budgets of gateways, which limit the replicas of their servers."""
        self._inspections = inspections.Inspections(states)
        self._prompts = PromptFolders(cluster, store)
        self.steps = PassSteps(cluster, store, StatusWriter(cluster, store, clock.wall))
        self.enqueue: Callable[[Key], None] = lambda _: None
        """Called with a server whose next pass is due at once."""
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
            self.steps.on_conditions(key, ())
            await self._prompts.clean_up(key, self._store.children(key))
            return
        self._states.forget_previous(key, snapshot.raw["metadata"]["uid"])
        if isinstance(snapshot, Invalid):
            await self._report_invalid(key, snapshot)
            return
        moment = self._schedule_clock.now()
        state = self._states[key]
        self._track(state, snapshot, moment)
        desired = self._desired(state, snapshot.server, moment)
        state.exceeds_budget = desired.exceeds_budget
        decision = decide(
            snapshot,
            desired,
            moment.wall,
            warming_up=state.demand.is_warming_up(moment.monotonic),
            rejected=state.unapplied,
            attempted=state.attempted,
        )
        plan = self._plan(snapshot, decision, state, moment)
        if _replicas_drifted(plan, snapshot.observed) or _awaits_choice(snapshot, desired):
            # A correction of what others set is no scaling, nor is what waits for a choice.
            decision = decision.unscaled()
        plan = state.conflicts.suppress(plan, moment.monotonic)
        reported = snapshot.is_reported
        if not await self.steps.may_write(plan, snapshot.raw, is_reported=reported):
            self.enqueue(key)
            return
        result = await self._apply(plan, snapshot, decision, state)
        self._record_writes(state, snapshot, decision, result, moment)
        if result.error and not result.rejected:
            raise result.error
        if self._advance(state, snapshot, decision, result):
            self.enqueue(key)
            return
        await self._clean_up(key, snapshot)
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
            state.is_due(now)
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
        if desired.exceeds_budget != state.exceeds_budget:
            return True
        if desired.reason in NOT_AUTOSCALED or (state.awaits_choice and desired.replicas):
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
        now = self._clock.monotonic()
        download = state.download
        if download.latest(download.addresses, now) != state.shown_progress:
            return True
        demand = state.demand.latest(now)
        shown = state.unresponsive, state.builds or ()
        if demand and (demand.unresponsive, demand.builds) != shown:
            return True
        if demand and demand.without_speculation != state.without_speculation:
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

    def download_samples(self) -> list[tuple[Key, DownloadSample]]:
        """The progress of each server that downloads its model."""
        now = self._clock.monotonic()
        samples = ((key, state.download.sample(now)) for key, state, _ in self._states.servers())
        return [(key, sample) for key, sample in samples if sample]

    def conflicts(self) -> int:
        """Children in conflict, of all servers."""
        return sum(len(state.conflicts) for _, state, _ in self._states.servers())

    def prefetches(self) -> Mapping[str, int]:
        """The numbers of prefetch Jobs, by phase."""
        found = Counter(state.prefetch for _, state, _ in self._states.servers() if state.prefetch)
        return {each.value: found[each] for each in Phase}

    def accelerator_problems(self) -> Mapping[str, int]:
        """The numbers of servers whose accelerators are not used as requested, by reason."""
        found = (
            condition(state.server.status, ConditionType.ACCELERATOR_READY)
            for _, state in self._states.records()
            if state.server
        )
        # A suspended server has no problem, though its conditions are False.
        return Counter(
            each["reason"] for each in found if each.get("reason") in ACCELERATOR_REASONS
        )

    # The steps of a pass.

    async def _observe(self, key: Key) -> Snapshot | Invalid | None:
        """Read what exists; None for a server that is deleted or being deleted."""
        raw = self.steps.resource(key)
        if raw is None:
            return None
        if reason := raw.get(UNREADABLE):
            return Invalid(raw, f"the resource cannot be read: {reason}")
        try:
            server = LlamaServer.parse(raw)
        except InvalidSpec as error:
            return Invalid(raw, str(error))
        if problem := not_allowed(server, self.downloads):
            return Invalid(raw, problem.message, problem.reason)
        state = self._states.find(key)
        observed = observe(self._store, server, await self.steps.unlabelled(key, state))
        self.steps.check_readable(observed.children, server)
        demand = state.demand.latest(self._clock.monotonic()) if state else None
        if demand and demand.unresponsive:
            observed = replace(observed, unresponsive=demand.unresponsive)
        if state and (downloading := progress_addresses(observed)):
            progress = state.download.latest(downloading, self._clock.monotonic())
            observed = replace(observed, progress=progress)
        now = self._clock.monotonic()
        observed = self._inspections.with_limits(observed, state, server.generation, now)
        server, observed, problem = await self._gpus.resolve(server, observed)
        if problem:
            return Invalid(raw, problem.message, problem.reason)
        return Snapshot(raw, server, observed)

    def _track(self, state: ServerState, snapshot: Snapshot, moment: Moment) -> None:
        """Remember what was observed."""
        server, observed = snapshot.server, snapshot.observed
        state.server = server
        state.current = observed.current
        state.unlabelled = set(observed.unlabelled)
        if state.unreported and is_reported(server, state.unreported):
            # The status was written, and the response to it lost.
            state.unreported = None
        state.name_conflict = self.steps.name_conflict(
            server,
            observed.children,
            lambda: inspections.without_inspection(
                manifests(server, 0, self._images, downloads=self.downloads), server
            ),
        )
        policy = state.policy_at(moment.scheduled)
        state.demand.track(addresses(observed.balancer_pods), policy)
        state.download.track(progress_addresses(observed), moment.monotonic)
        state.logs.track(started_containers(server, observed))
        state.pods = pod_readiness(observed)
        state.awaits_choice = observed.awaits_choice
        if waiting := self._inspections.track(state, observed, moment.wall):
            self.enqueue(waiting)
        job = observed.prefetch_job
        state.prefetch = phase(job) if job else None
        pods = [*observed.replica_pods, *observed.worker_pods, *observed.balancer_pods]
        pods += [*observed.prefetch_pods, *observed.inspection_pods]
        waits = [not_found_in(pods, moment.wall), retry_in(job, moment.wall) if job else None]
        waits += [released_in(observed, moment.wall), *inspections.waits(state, observed, moment)]
        due = [moment.monotonic + seconds for seconds in waits if seconds]
        if policy and state.demand.is_warming_up(moment.monotonic):
            # Conditions are kept until then, and no change may follow.
            due.append(state.demand.warm_up_ends)
        state.due_at = min(due, default=None)

    def _plan(
        self, snapshot: Snapshot, decision: Decision, state: ServerState, moment: Moment
    ) -> Plan:
        server, observed = snapshot.server, snapshot.observed
        replicas = decision.scaling.desired.replicas
        uid = account_uid(server, observed)
        desired = manifests(
            server, replicas, self._images, decision.blocker, uid or "", self.downloads
        )
        if uid is None:
            # The next pass creates it. Pods without the uid would be replaced at once.
            balancers = (DEPLOYMENTS, names.balancer(server))
            desired = [manifest for manifest in desired if child(manifest) != balancers]
        children = dict(observed.children)
        state.awaits_inspection = False
        if observed.memory:
            read = inspection.job(server, self._images, self.downloads)
            inspects = inspections.decide(snapshot, read, state, moment.wall)
            desired, children = inspections.with_inspection(inspects, read, desired, children)
        if _awaits_choice(snapshot, decision.scaling.desired):
            desired, children = without_workloads(desired, children)
        prefetched = (JOBS, prefetch.name(server))
        job = next((manifest for manifest in desired if child(manifest) == prefetched), None)
        scaling = decision.scaling.desired
        prefetches = decide_prefetch(server, observed, job, scaling, moment.wall)
        if job and prefetches is not Prefetch.RUN:
            desired.remove(job)
            if prefetches is Prefetch.KEEP:
                del children[child(job)]
        plan = plan_changes(desired, children, server, observed.deleted_by_others)
        return inspections.optional(plan, snapshot)

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
        self.steps.record_writes(state, result, moment.monotonic)
        job = (JOBS, prefetch.name(snapshot.server))
        if job in result.applied and snapshot.observed.prefetch_job is None:
            state.events.append(prefetch_started(job[1]))
        inspections.record_rejection(state, snapshot, result, moment)
        scaling, replicas = decision.scaling, snapshot.observed.replicas
        if scaling.scaled and replicas and child(replicas) in result.applied:
            state.demand.scaled(scaling.change, moment.monotonic)
            state.events.append(scaled(scaling))
            before = state.unreported.before if state.unreported else scaling.before
            state.unreported = replace(scaling, before=before)

    def _advance(
        self, state: ServerState, snapshot: Snapshot, decision: Decision, result: Result
    ) -> bool:
        """Remember the outcome of a plan; whether the next pass is due at once."""
        state.attempted = state.attempted or not decision.scaling.awaits_report
        withdraws = decision.keeps_blocker and state.attempted
        changed = result.outdates_snapshot or withdraws or bool(result.skipped)
        generation = snapshot.server.generation
        return state.record_rejection(result.rejected, generation, changed=changed)

    async def _clean_up(self, key: Key, snapshot: Snapshot) -> None:
        """Remove what the server left on claims that it no longer uses."""
        server = snapshot.server
        used = prompt_cleanup.is_used(server)
        desired = prompt_cleanup.job(server, self._images) if used else None
        if await self._prompts.clean_up(key, snapshot.observed.children, desired):
            self.enqueue(key)

    async def _report(
        self, state: ServerState, snapshot: Snapshot, decision: Decision, moment: Moment
    ) -> None:
        scaling = _reported_scaling(state, decision)
        demand = state.demand.latest(moment.monotonic)
        state.unresponsive = demand.unresponsive if demand else ()
        state.without_speculation = demand.without_speculation if demand else ()
        state.serving = serving(pod_readiness(snapshot.observed), state.demand, moment)
        conflict = state.conflicts.problem(moment.monotonic)
        state.builds = demand.builds if demand else state.builds
        accepted = accepted_advisories(snapshot.raw)
        problems = Problems(
            state.unapplied,
            conflict,
            state.serving,
            prompts=demand.prompt_cache if demand else None,
            prime=demand.prime if demand else None,
            speculation=demand.speculation if demand else None,
            logs=state.logs.results(),
            build=build_problem(snapshot.server, state.builds, accepted),
        )
        key = Key(snapshot.server.namespace, snapshot.server.name)
        found = report(snapshot, scaling, problems, demand, state.events, moment.wall)
        raw = await self.steps.write_report(key, snapshot.raw, state, found)
        if raw is None:
            self.enqueue(key)
            return
        state.unreported = None
        state.shown_progress = snapshot.observed.progress
        state.server = replace(snapshot.server, status=raw.get("status") or {})
        if inspections.is_news(snapshot, state.server):
            self.enqueue(key)

    async def _report_invalid(self, key: Key, snapshot: Invalid) -> None:
        state = self._states.find(key)
        pending = state.events if state else []
        self._forget(key)
        status, events = invalid_report(
            snapshot.raw, snapshot.message, self._clock.wall(), reason=snapshot.reason
        )
        found = Report(status, [*pending, *events])
        await self.steps.write_invalid(key, snapshot.raw, found)

    def _forget(self, key: Key) -> None:
        self._states.forget(key)
        self._store.forget(key)

    def _desired(self, state: ServerState, server: LlamaServer, moment: Moment) -> DesiredReplicas:
        grant = self.budgets.grant(Key(server.namespace, server.name))
        return within_grant(self._without_budget(state, server, moment), grant)

    def _without_budget(
        self, state: ServerState, server: LlamaServer, moment: Moment
    ) -> DesiredReplicas:
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


def _awaits_choice(snapshot: Snapshot, desired: DesiredReplicas) -> bool:
    """Whether replicas are desired that have to wait for a choice of `auto`."""
    return snapshot.observed.awaits_choice and desired.replicas > 0


def _replicas_drifted(plan: Plan, observed: Observed) -> bool:
    replicas = observed.replicas
    return replicas is not None and ("spec", "replicas") in plan.drifted.get(child(replicas), ())
