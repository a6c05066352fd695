"""Kubernetes Events of a server. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition, rfc3339
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Child
from slotkeeper.reconcile.decide.replicas import NOT_AUTOSCALED, Scaling
from slotkeeper.reconcile.write.conflicts import Drift

COMPONENT = "slotkeeper"
MAX_MESSAGE = 1024
"""Characters; the API server rejects a longer message."""


@dataclass(frozen=True)
class EventContent:
    """What an event reports."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    always: bool = False
    """Create one for each occurrence. Else one an hour for each generation of the spec is enough: a
    condition that flaps would fill the list."""


def condition_events(
    before: Mapping[str, Any], values: Sequence[ConditionValue]
) -> list[EventContent]:
    """An event for a server that became ready, and for a new problem.

    `before` is the status as it was read.
    """
    by_type = {value.type: value for value in values}
    ready = by_type[ConditionType.READY]
    degraded = by_type[ConditionType.DEGRADED]
    model = by_type.get(ConditionType.MODEL_READY)
    events = []
    if model and model.reason == Reason.PREFETCHED and not _had_model(before):
        events.append(EventContent("Normal", "Prefetched", model.message))
    if ready.status == "True" and condition(before, ready.type).get("status") != "True":
        events.append(EventContent("Normal", "Ready", ready.message))
    was = condition(before, degraded.type).get("reason")
    if degraded.status == "True" and was != degraded.reason:
        events.append(EventContent("Warning", degraded.reason, degraded.message))
    return events


def _had_model(before: Mapping[str, Any]) -> bool:
    """Whether the model is not new: a replica had it, or the Job had ended."""
    reason = condition(before, ConditionType.MODEL_READY).get("reason")
    return reason in {Reason.PREFETCHED, Reason.DOWNLOADED}


def prefetch_started(job: str) -> EventContent:
    """The event of a new Job that downloads the model."""
    return EventContent("Normal", "PrefetchStarted", f"Job {job} downloads the model")


def scaled(scaling: Scaling) -> EventContent:
    """The event of a change of the number of replicas."""
    before = scaling.before or 0
    desired = scaling.desired
    reason = "ScaledUp" if desired.replicas > before else "ScaledDown"
    # A decision by demand has the change in its message.
    change = f": {before} -> {desired.replicas}" if desired.reason in NOT_AUTOSCALED else ""
    return EventContent("Normal", reason, desired.message + change, always=True)


def drift_corrected(drift: Drift) -> EventContent:
    """The event of a child that others changed or deleted and that was corrected."""
    changed = f"changed by {drift.manager}" if drift.manager else "changed or removed"
    message = (
        f"{drift.name}: {drift.field_list} {changed}; corrected"
        if drift.fields
        else f"{drift.name} was deleted; created again"
    )
    return EventContent("Warning", "DriftCorrected", message)


def adopted(children: Sequence[Child]) -> EventContent:
    """The event of children without an owner that the server has adopted."""
    found = ", ".join(f"{kind.kind} {name}" for kind, name in children)
    return EventContent("Normal", "Adopted", f"{found} had no owner; adopted")


def event(content: EventContent, server: Manifest, now: datetime) -> Manifest:
    """The Event object.

    Its name is derived from the content and the server's resource version, or else its generation
    and the hour. Created again for the same state, by an operator that was stopped before it could
    write the next one, it is a conflict and not a second event.
    """
    metadata = server["metadata"]
    occurrence = (
        metadata["resourceVersion"]
        if content.always
        else f"{metadata.get('generation', 0)} {now:%Y-%m-%dT%H}"
    )
    identity = (metadata["uid"], occurrence, content.reason, content.message)
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{digest}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": server["apiVersion"],
            "kind": server["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": content.type,
        "reason": content.reason,
        "message": content.message[:MAX_MESSAGE],
        "count": 1,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
