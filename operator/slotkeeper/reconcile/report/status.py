"""What a server's status says. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slotkeeper.api.conditions import ConditionType, ConditionValue, conditions, rfc3339
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import LlamaServerStatus, ScalingEvent, ScalingStatus, SlotsStatus
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.reconcile.decide.replicas import NOT_AUTOSCALED, DesiredReplicas, Scaling
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe.model import model_status
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.report.conditions import condition
from slotkeeper.reconcile.report.events import EventContent

Status = dict[str, Any]

HISTORY_LENGTH = 10
"""Changes of the number of replicas that are kept."""


def status(
    server: LlamaServer,
    observed: Observed,
    findings: Sequence[ConditionValue],
    scaling: Scaling,
    reading: ServerDemand | None,
    *,
    now: datetime,
) -> Status:
    """The whole status, as its JSON tree.

    Without a `reading`, the last numbers of busy slots and of waiting requests stay.
    """
    replicas = (observed.replicas or {}).get("status", {})
    ready = replicas.get("readyReplicas", 0)
    there = replicas.get("replicas", 0)
    slots, waiting = _numbers(server, ready, reading)
    return LlamaServerStatus(
        observed_generation=server.generation,
        conditions=conditions(
            findings, server.status.get("conditions", []), generation=server.generation, now=now
        ),
        replicas=there,
        ready_replicas=ready,
        selector=names.selector(server, Component.REPLICA),
        slots=slots,
        queued=waiting,
        endpoint=names.endpoint(server),
        model=model_status(server, observed),
        scaling=_scaling(server, scaling, now).model_copy(update={"current_replicas": there}),
    ).tree()


def invalid(raw: Mapping[str, Any], findings: Sequence[ConditionValue], *, now: datetime) -> Status:
    """The status of a server whose spec cannot be read: the rest stays as it was."""
    before: Status = raw.get("status") or {}
    generation = raw["metadata"].get("generation", 0)
    found = conditions(findings, before.get("conditions", []), generation=generation, now=now)
    return before | LlamaServerStatus(observed_generation=generation, conditions=found).model_dump(
        by_alias=True, include={"observed_generation", "conditions"}
    )


def event_contents(
    before: Mapping[str, Any], findings: Sequence[ConditionValue], scaling: Scaling | None
) -> list[EventContent]:
    """What is worth an event: replicas more or fewer, ready, a new trouble."""
    found = [_scaled(scaling.before, scaling.desired)] if scaling and scaling.scaled else []
    said = {finding.type: finding for finding in findings}
    ready = said[ConditionType.READY]
    degraded = said[ConditionType.DEGRADED]
    if ready.status == "True" and condition(before, ready.type).get("status") != "True":
        found.append(EventContent("Normal", "Ready", ready.message))
    if degraded.status == "True" and condition(before, degraded.type).get("reason") != (
        degraded.reason
    ):
        found.append(EventContent("Warning", degraded.reason, degraded.message))
    return found


def _scaled(before: int | None, wanted: DesiredReplicas) -> EventContent:
    reason = "ScaledUp" if wanted.replicas > (before or 0) else "ScaledDown"
    change = f": {before} -> {wanted.replicas}" if wanted.reason in NOT_AUTOSCALED else ""
    return EventContent("Normal", reason, wanted.message + change, always=True)


def _numbers(
    server: LlamaServer, ready: int, reading: ServerDemand | None
) -> tuple[SlotsStatus, int]:
    if server.spec.suspend:
        return SlotsStatus(), 0
    if reading:
        busy = reading.sample.busy_slots
        total = reading.sample.total_slots
        return SlotsStatus(total=total, busy=busy), reading.sample.queued
    before = server.status.get("slots", {})
    total = ready * server.spec.slots
    busy = min(before.get("busy", 0), total)
    return SlotsStatus(total=total, busy=busy), server.status.get("queued", 0)


def _scaling(server: LlamaServer, scaling: Scaling, now: datetime) -> ScalingStatus:
    before = server.status.get("scaling") or {}
    wanted = scaling.desired
    # By the last status too: the operator may have been stopped between the change and its status.
    scaled = scaling.scaled or before.get("desiredReplicas", wanted.replicas) != wanted.replicas
    if before and scaling.warming_up and not scaled:
        return ScalingStatus.model_validate(before)
    same = (before.get("desiredReplicas"), before.get("reason")) == (wanted.replicas, wanted.reason)
    return ScalingStatus(
        desired_replicas=wanted.replicas,
        reason=wanted.reason,
        message=wanted.message,
        last_transition_time=(before.get("lastTransitionTime") if same else None) or rfc3339(now),
        history=_decisions(before, scaling, now),
        last_scale_time=rfc3339(now) if scaled else before.get("lastScaleTime"),
    )


def _decisions(before: Mapping[str, Any], scaling: Scaling, now: datetime) -> list[ScalingEvent]:
    decisions = [ScalingEvent.model_validate(each) for each in before.get("history", [])]
    # By the last status, where the operator was stopped between the change and its status.
    was = scaling.before if scaling.scaled else before.get("desiredReplicas")
    wanted = scaling.desired
    if was is None or was == wanted.replicas:
        return decisions
    made = ScalingEvent(
        time=rfc3339(now),
        from_=was,
        to=wanted.replicas,
        reason=wanted.reason,
        message=wanted.message,
    )
    return [made, *decisions][:HISTORY_LENGTH]
