"""The Job that reads the headers of a server's files, in a pass."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from slotkeeper.api.server import LlamaServer
from slotkeeper.backoff import Backoff
from slotkeeper.desired import inspection
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import JOBS
from slotkeeper.kube.objects import Child, Key, child
from slotkeeper.reconcile.clock import Moment
from slotkeeper.reconcile.decide.inspection import Inspection, decide_inspection
from slotkeeper.reconcile.observe.inspection import inspects_again_in, report_missing_in
from slotkeeper.reconcile.observe.memory import has_new_header
from slotkeeper.reconcile.observe.memory_choice import recorded_choice
from slotkeeper.reconcile.observe.observed import Observed, Snapshot
from slotkeeper.reconcile.observe.prefetch import RETRY_AFTER, Phase, phase
from slotkeeper.reconcile.state import InspectionRejection, ServerState, States
from slotkeeper.reconcile.write.apply import Result
from slotkeeper.reconcile.write.plan import Plan

MAX_AT_ONCE = 20
"""Jobs that run at the same time: an upgrade, or a new label of nodes, may require one for each of
a thousand servers, while other pods download models from the same hub."""


COUNTED = timedelta(minutes=2)
"""How long a Job counts: the servers of one user, whose Jobs cannot run, must not keep those of
others waiting."""

RETRY_REJECTED = Backoff(10.0, RETRY_AFTER.total_seconds())
"""Between two tries to create a Job that the API server rejects: no watch shows that a quota has
space."""

NODES_SECONDS = 60.0
"""How often the memory of nodes is looked up where `auto` waits for it: no watch shows nodes."""


class Inspections:
    """Which servers have a Job, or wait for one."""

    def __init__(self, states: States) -> None:
        self._states = states

    def with_limits(
        self, observed: Observed, state: ServerState | None, generation: int, now: float
    ) -> Observed:
        """What was observed, with what keeps a Job from being created: why it was rejected for this
        spec, while it is not tried again, and the Jobs of other servers."""
        rejection = state.inspection if state else None
        holds = rejection is not None and rejection.holds(generation, now)
        running = sum(each.inspects for _, each in self._states.records() if each is not state)
        return replace(
            observed,
            inspection_rejected=rejection.message if rejection and holds else "",
            inspections_full=running >= MAX_AT_ONCE,
        )

    def track(self, state: ServerState, observed: Observed, wall: datetime) -> Key | None:
        """Remember whether the Job counts. Returns a server whose Job may run instead."""
        before, state.inspects = state.inspects, _counted_for(observed, wall) != 0
        if state.inspects or not before:
            return None
        for key, each in self._states.records():
            if each.awaits_inspection:
                # Another Job that ends is for the next one.
                each.awaits_inspection = False
                return key
        return None


def decide(snapshot: Snapshot, job: Manifest, state: ServerState, wall: datetime) -> Inspection:
    """Decide on the Job, and remember whether it waits for those of others."""
    server, observed = snapshot.server, snapshot.observed
    found = decide_inspection(server, observed, job, wall)
    alone = decide_inspection(server, replace(observed, inspections_full=False), job, wall)
    state.awaits_inspection = found is not alone
    if found is Inspection.RUN and observed.inspection_job is None:
        state.inspects = True
    return found


def with_inspection(
    decision: Inspection,
    job: Manifest,
    desired: list[Manifest],
    children: Mapping[Child, Manifest],
) -> tuple[list[Manifest], dict[Child, Manifest]]:
    """The desired children with this Job, if there should be one; and the observed ones, without it
    if it stays as it is."""
    others = [manifest for manifest in desired if child(manifest) != child(job)]
    kept = decision is Inspection.KEEP
    found = {one: item for one, item in children.items() if not (kept and one == child(job))}
    return [*others, *([job] if decision is Inspection.RUN else [])], found


def waits(state: ServerState, observed: Observed, moment: Moment) -> Iterator[float]:
    """Seconds until something is to be done though nothing changed."""
    if job := observed.inspection_job:
        missing = report_missing_in(job, observed.inspection_pods, moment.wall)
        counted = _counted_for(observed, moment.wall)
        yield from filter(None, [inspects_again_in(job, moment.wall), missing, counted])
    if observed.inspection_rejected and state.inspection:
        yield state.inspection.retry_at - moment.monotonic
    facts = observed.memory
    if facts and facts.unchosen and facts.gpu_bytes is None:
        yield NODES_SECONDS


def _counted_for(observed: Observed, wall: datetime) -> float:
    """Seconds for which the Job counts as one of those that may run at the same time."""
    job = observed.inspection_job
    if job is None or phase(job) is not Phase.RUNNING:
        return 0.0
    created = job["metadata"].get("creationTimestamp")
    since = wall if created is None else datetime.fromisoformat(created)
    return max(0.0, (since + COUNTED - wall).total_seconds())


def without_inspection(desired: Iterable[Manifest], server: LlamaServer) -> list[Manifest]:
    """The children that a server cannot do without."""
    return [each for each in desired if child(each) != (JOBS, inspection.name(server))]


def optional(plan: Plan, snapshot: Snapshot) -> Plan:
    """The plan, in which the API server may reject the Job: replicas start without it, and the
    status says why it does not exist."""
    return replace(plan, optional={(JOBS, inspection.name(snapshot.server))})


def is_news(snapshot: Snapshot, written: LlamaServer) -> bool:
    """Whether the status that was just written, now that of `written`, has a header or a choice for
    the first time: the Job is not needed any more, and replicas may get the choice.

    With the CRD of an older release, the status keeps neither.
    """
    facts = snapshot.observed.memory
    if facts is None:
        return False
    new_header = has_new_header(snapshot.server, facts) and not has_new_header(written, facts)
    return new_header or not (facts.is_recorded or recorded_choice(written, facts.settings) is None)


def record_rejection(
    state: ServerState, snapshot: Snapshot, result: Result, moment: Moment
) -> None:
    """Remember whether the Job was rejected. One that exists works without the rejected change,
    which is not tried again soon."""
    name = inspection.name(snapshot.server)
    if (JOBS, name) in result.applied:
        state.inspection = None
    why = result.skipped.get((JOBS, name))
    if why is None:
        return
    generation, before = snapshot.server.generation, state.inspection
    tries = 1 + (before.tries if before and before.generation == generation else 0)
    if snapshot.observed.inspection_job:
        wait = RETRY_AFTER.total_seconds()
    else:
        wait = RETRY_REJECTED.delay(tries)
    state.inspection = InspectionRejection(
        f"the API server rejected Job {name}: {why}; it is tried again within ten minutes",
        generation,
        tries,
        moment.monotonic + wait,
    )
