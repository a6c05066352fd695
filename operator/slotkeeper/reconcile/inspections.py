"""The Job that reads the headers of a server's files, in a pass."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import JOBS
from slotkeeper.kube.objects import Child, child
from slotkeeper.reconcile.clock import Moment
from slotkeeper.reconcile.decide.inspection import Inspection
from slotkeeper.reconcile.observe.inspection import inspects_again_in, report_missing_in
from slotkeeper.reconcile.observe.memory import has_new_header
from slotkeeper.reconcile.observe.memory_choice import recorded_choice
from slotkeeper.reconcile.observe.observed import Observed, Snapshot
from slotkeeper.reconcile.observe.prefetch import RETRY_AFTER
from slotkeeper.reconcile.state import InspectionRejection, ServerState
from slotkeeper.reconcile.write.apply import Result
from slotkeeper.reconcile.write.plan import Plan


def with_rejection(
    observed: Observed, state: ServerState | None, generation: int, now: float
) -> Observed:
    """What was observed, with why the Job was rejected for this spec, while it is not tried
    again."""
    rejection = state.inspection if state else None
    if rejection is None or not rejection.holds(generation, now):
        return observed
    return replace(observed, inspection_rejected=rejection.message)


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


def waits(job: Manifest, observed: Observed, wall: datetime) -> list[float | None]:
    """Seconds until something is to be done about this Job though nothing changed."""
    missing = report_missing_in(job, observed.inspection_pods, wall)
    return [inspects_again_in(job, wall), missing]


def without_inspection(desired: Iterable[Manifest], server: LlamaServer) -> list[Manifest]:
    """The children that a server cannot do without."""
    return [each for each in desired if child(each) != (JOBS, inspection.name(server))]


def optional(plan: Plan, snapshot: Snapshot) -> Plan:
    """The plan, in which the API server may reject the Job: replicas start without it, and the
    status tells why it does not exist."""
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


def rejection(snapshot: Snapshot, result: Result, moment: Moment) -> InspectionRejection | None:
    """Why the Job was rejected; None where it was not."""
    name = inspection.name(snapshot.server)
    why = result.skipped.get((JOBS, name))
    if why is None:
        return None
    message = f"the API server rejected Job {name}: {why}"
    retry_at = moment.monotonic + RETRY_AFTER.total_seconds()
    return InspectionRejection(message, snapshot.server.generation, retry_at)
