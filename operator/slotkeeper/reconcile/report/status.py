"""The status of a server. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slotkeeper.api.conditions import ConditionType, ConditionValue, conditions, rfc3339
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import (
    GpuStatus,
    LlamaServerStatus,
    ModelStatus,
    ScalingEvent,
    ScalingStatus,
    SlotsStatus,
)
from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.reconcile.decide.replicas import Scaling
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.observe import prefetch
from slotkeeper.reconcile.observe.model import model_status
from slotkeeper.reconcile.observe.observed import Snapshot
from slotkeeper.reconcile.report.memory import memory_status
from slotkeeper.reconcile.report.prime import is_prime_status_stale, prime_status
from slotkeeper.reconcile.report.prompt_cache import is_prompt_status_stale, prompt_status
from slotkeeper.reconcile.report.speculation import (
    is_speculative_status_stale,
    speculative_status,
)

Status = dict[str, Any]

FAILED = "Failed"
"""In the column MODEL, while the download has failed."""

_FAILURES = prefetch.FAILURES | {Reason.OOM_KILLED}
"""Reasons of ModelReady where the download has failed."""

HISTORY_LENGTH = 10
"""Changes of the number of replicas that are kept."""


def status(
    snapshot: Snapshot,
    values: Sequence[ConditionValue],
    scaling: Scaling,
    demand: ServerDemand | None,
    *,
    now: datetime,
) -> Status:
    """The whole status, as its JSON tree.

    Without a current `demand`, the last numbers of busy slots and queued requests are kept.
    """
    server = snapshot.server
    observed = snapshot.observed
    replicas = (observed.replicas or {}).get("status", {})
    ready = replicas.get("readyReplicas", 0)
    current = replicas.get("replicas", 0)
    slots, queued = _numbers(server, ready, demand)
    return LlamaServerStatus(
        observed_generation=server.generation,
        conditions=conditions(
            values, server.status.get("conditions", []), generation=server.generation, now=now
        ),
        replicas=current,
        ready_replicas=ready,
        selector=names.selector(server, Component.REPLICA),
        slots=slots,
        queued=queued,
        url=names.client_url(server),
        model=_model(snapshot, values),
        scaling=_scaling(server, scaling, now).model_copy(update={"current_replicas": current}),
        gpu=_gpu(observed.chosen_for),
        memory=memory_status(server, observed.memory),
        prompt_cache=prompt_status(server, demand.prompt_cache if demand else None),
        prime=prime_status(server, demand.prime if demand else None),
        speculative=speculative_status(server, demand.speculation if demand else None),
    ).tree()


def invalid(raw: Mapping[str, Any], values: Sequence[ConditionValue], *, now: datetime) -> Status:
    """The status of a server whose spec is not valid: only its conditions change."""
    before: Status = raw.get("status") or {}
    generation = raw["metadata"].get("generation", 0)
    found = conditions(values, before.get("conditions", []), generation=generation, now=now)
    return before | LlamaServerStatus(observed_generation=generation, conditions=found).model_dump(
        by_alias=True, include={"observed_generation", "conditions"}
    )


def is_reported(server: LlamaServer, scaling: Scaling) -> bool:
    """Whether the last change in the status' history is this one."""
    history = (server.status.get("scaling") or {}).get("history") or [{}]
    desired = scaling.desired
    change = (scaling.before, desired.replicas, desired.reason, desired.message)
    return tuple(history[0].get(name) for name in ("from", "to", "reason", "message")) == change


def is_stale(server: LlamaServer, demand: ServerDemand | None) -> bool:
    """Whether the status shows other numbers than the last report."""
    if demand is None:
        return False
    sample = demand.sample
    slots = {"total": sample.total_slots, "busy": sample.busy_slots}
    return (
        slots != server.status.get("slots")
        or sample.queued != server.status.get("queued")
        or is_prompt_status_stale(server, demand.prompt_cache)
        or is_prime_status_stale(server, demand.prime)
        or is_speculative_status_stale(server, demand.speculation)
    )


def _model(snapshot: Snapshot, values: Sequence[ConditionValue]) -> ModelStatus:
    """The model. Its column shows a failure until bytes arrive: else it would alternate with what
    each retry does first."""
    found = model_status(snapshot.server, snapshot.observed)
    reasons = (Reason(each.reason) for each in values if each.type is ConditionType.MODEL_READY)
    reason = next(reasons, None)
    if reason not in _FAILURES:
        return found
    progress = snapshot.observed.progress
    # With a wrong SHA-256 bytes arrive until the next failure.
    advances = progress and progress.bytes_arrive and reason != Reason.MODEL_CHECKSUM_MISMATCH
    return found if advances else found.model_copy(update={"display": FAILED})


def _gpu(chosen_for: Sequence[str] | None) -> GpuStatus | None:
    return None if chosen_for is None else GpuStatus(compute_arches=list(chosen_for))


def _numbers(
    server: LlamaServer, ready: int, demand: ServerDemand | None
) -> tuple[SlotsStatus, int]:
    if server.spec.suspend:
        return SlotsStatus(), 0
    if demand:
        sample = demand.sample
        return SlotsStatus(total=sample.total_slots, busy=sample.busy_slots), sample.queued
    total = ready * server.spec.slots
    busy = min(server.status.get("slots", {}).get("busy", 0), total)
    return SlotsStatus(total=total, busy=busy), server.status.get("queued", 0)


def _scaling(server: LlamaServer, scaling: Scaling, now: datetime) -> ScalingStatus:
    before = server.status.get("scaling") or {}
    desired = scaling.desired
    # By the last status too: the operator may have been stopped between a change and its status.
    scaled = scaling.scaled or before.get("desiredReplicas", desired.replicas) != desired.replicas
    if before and scaling.warming_up and not scaled:
        return ScalingStatus.model_validate(before)
    decision = (desired.replicas, desired.reason)
    same = (before.get("desiredReplicas"), before.get("reason")) == decision
    return ScalingStatus(
        desired_replicas=desired.replicas,
        reason=desired.reason,
        message=desired.message,
        last_transition_time=(before.get("lastTransitionTime") if same else None) or rfc3339(now),
        history=_history(before, scaling, now),
        last_scale_time=rfc3339(now) if scaled else before.get("lastScaleTime"),
    )


def _history(before: Mapping[str, Any], scaling: Scaling, now: datetime) -> list[ScalingEvent]:
    history = [ScalingEvent.model_validate(each) for each in before.get("history", [])]
    # By the last status, if the operator was stopped between the change and its status.
    was = scaling.before if scaling.scaled else before.get("desiredReplicas")
    desired = scaling.desired
    if was is None or was == desired.replicas:
        return history
    change = ScalingEvent(
        time=rfc3339(now),
        from_=was,
        to=desired.replicas,
        reason=desired.reason,
        message=desired.message,
    )
    return [change, *history][:HISTORY_LENGTH]
