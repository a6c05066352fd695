"""Conditions, as every Kubernetes API has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from slotkeeper.api.validation import ApiModel

Verdict = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """What a LlamaServer's conditions speak of."""

    READY = "Ready"
    """The sum of ModelReady, ReplicasReady and BalancerReady: the spec as it is now is served."""
    MODEL_READY = "ModelReady"
    """The model is downloaded and checked."""
    REPLICAS_READY = "ReplicasReady"
    """As many replicas serve as are wanted."""
    BALANCER_READY = "BalancerReady"
    """The balancer takes requests."""
    SCALING_ACTIVE = "ScalingActive"
    """Demand says how many replicas run."""
    DEGRADED = "Degraded"
    """Something is wrong that somebody has to mend, whether requests are served or not."""


@dataclass(frozen=True)
class ConditionValue:
    """What is known of one condition now; when it began is not its business."""

    type: ConditionType
    status: Verdict
    reason: str
    """One CamelCase word for programs, such as ModelNotFound."""
    message: str
    """A sentence for people."""


class Condition(ApiModel):
    """One condition, in the shape of Kubernetes' own metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What the condition speaks of: Ready, ModelReady, ReplicasReady, BalancerReady,
    ScalingActive or Degraded."""
    status: Verdict
    """Whether it holds: True, False, or Unknown where it could not be found out."""
    reason: Annotated[
        str,
        Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ]
    """Why, as one CamelCase word for programs, such as ModelNotFound."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, as a sentence for people."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Since when the status has been what it is, in RFC 3339."""
    observed_generation: Annotated[
        int, Field(default=0, ge=0, json_schema_extra={"format": "int64"})
    ]
    """The metadata.generation of the spec that the condition was found for."""


def conditions(
    findings: Sequence[ConditionValue],
    previous: Sequence[Mapping[str, Any]],
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Findings as conditions: the time of one moves only when its status does.

    `previous` is the resource's `status.conditions` as it was read; `now` must know its zone.
    """
    before = {condition["type"]: condition for condition in previous}
    return [
        Condition(
            type=finding.type,
            status=finding.status,
            reason=finding.reason,
            message=finding.message,
            last_transition_time=_since(finding, before.get(finding.type), now),
            observed_generation=generation,
        )
        for finding in findings
    ]


def condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of this type in a status as it was read; empty where there is none."""
    return next((found for found in status.get("conditions", []) if found["type"] == kind), {})


def _since(finding: ConditionValue, before: Mapping[str, Any] | None, now: datetime) -> str:
    if before is not None and before["status"] == finding.status:
        return str(before["lastTransitionTime"])
    return rfc3339(now)


def rfc3339(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
