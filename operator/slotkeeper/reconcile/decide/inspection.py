"""Whether the Job that reads the headers of a server's files should exist. Pure."""

from datetime import datetime
from enum import Enum, auto

from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.inspection import inspects_again_in
from slotkeeper.reconcile.observe.memory import is_worth_reading, recorded_header
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pod_templates import template_hash
from slotkeeper.reconcile.observe.prefetch import Phase, phase


class Inspection(Enum):
    """What happens with a server's Job."""

    NONE = auto()
    """There should be none: one that exists is deleted."""
    RUN = auto()
    """There should be one as it is desired."""
    KEEP = auto()
    """The one that exists stays as it is."""


def decide_inspection(
    server: LlamaServer, observed: Observed, job: Manifest, wall: datetime
) -> Inspection:
    """Decide on the Job; `job` is the desired one.

    | the headers | the Job | decision |
    |---|---|---|
    | are in the status, or of no use | | none |
    | otherwise | was rejected by the API server not long ago | none |
    | | is missing, others have too many, and no choice for `auto` depends on it | none |
    | | is missing | run, unless the server is suspended |
    | | is of another spec | none, then another one |
    | | has ended long ago without a report (`inspects_again_in`) | none, then another one |
    | | has ended | keep, until its report is in the status |
    | | is running, and a change of it was rejected not long ago | keep, unless it is suspended |
    | | is running | run, unless the server is suspended |
    """
    facts = observed.memory
    if facts is None or not is_worth_reading(server, facts) or recorded_header(server):
        return Inspection.NONE
    existing = observed.inspection_job
    running = Inspection.NONE if server.spec.suspend else Inspection.RUN
    if existing is None:
        full = observed.inspections_full and observed.unchosen is None
        return Inspection.NONE if full or observed.inspection_rejected else running
    if facts.header is None and template_hash(existing) != template_hash(job):
        return Inspection.NONE
    if phase(existing) is Phase.RUNNING:
        kept = running is Inspection.RUN and observed.inspection_rejected
        return Inspection.KEEP if kept else running
    if facts.header is None and inspects_again_in(existing, wall) == 0:
        return Inspection.NONE
    return Inspection.KEEP
