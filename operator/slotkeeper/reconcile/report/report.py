"""What users are to read after a pass: the status and the events. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from slotkeeper.api.conditions import ALWAYS, ConditionType
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.decide.replicas import Scaling
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe.observed import Snapshot
from slotkeeper.reconcile.report import conditions, status
from slotkeeper.reconcile.report.conditions import Problems
from slotkeeper.reconcile.report.download_events import download_events
from slotkeeper.reconcile.report.events import EventContent, condition_events


class Report(NamedTuple):
    """A status and the events that lead to it."""

    status: status.Status
    events: list[EventContent]


def report(
    snapshot: Snapshot,
    scaling: Scaling,
    problems: Problems,
    demand: ServerDemand | None,
    events: Sequence[EventContent],
    now: datetime,
) -> Report:
    """The report on a valid server; `events` were caused by writes since the last one."""
    values = conditions.condition_values(snapshot.server, snapshot.observed, scaling, problems, now)
    before = snapshot.server.status
    found = status.status(snapshot, values, scaling, demand, now=now)
    downloads = download_events(before, found["model"], snapshot.observed, values)
    return Report(found, [*events, *downloads, *condition_events(before, values)])


def invalid_report(
    raw: Manifest,
    message: str,
    now: datetime,
    kinds: Iterable[ConditionType] = ALWAYS,
    reason: Reason = Reason.INVALID_SPEC,
) -> Report:
    """The report on a resource whose spec breaks a rule; `kinds`: the types of its conditions."""
    values = conditions.invalid(message, kinds, reason)
    return Report(
        status.invalid(raw, values, now=now), condition_events(raw.get("status") or {}, values)
    )
