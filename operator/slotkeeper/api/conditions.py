"""Conditions in the shape of Kubernetes' metav1.Condition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from slotkeeper.api.validation import ApiModel

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Types of a LlamaServer's conditions."""

    READY = "Ready"
    """Summary of ModelReady, ReplicasReady and BalancerReady: the current spec is served."""
    MODEL_READY = "ModelReady"
    """The model is downloaded, and verified if it has a SHA-256."""
    REPLICAS_READY = "ReplicasReady"
    """The desired number of replicas is ready."""
    BALANCER_READY = "BalancerReady"
    """The balancer accepts requests."""
    SCALING_ACTIVE = "ScalingActive"
    """Demand determines the number of replicas."""
    PROMPT_CACHE_ACTIVE = "PromptCacheActive"
    """Prompts are saved to files and restored. Only of a server with `promptCache`."""
    PROMPTS_PRIMED = "PromptsPrimed"
    """New replicas compute the beginnings of prompts. Only of a server with `prime`."""
    ACCELERATOR_READY = "AcceleratorReady"
    """A replica's log shows that it uses its GPUs. Only of a server with GPUs."""
    FITS_MEMORY = "FitsMemory"
    """The model with all its slots fits into the GPUs, by a plan. Only of a server with GPUs."""
    DEGRADED = "Degraded"
    """A problem needs attention, whether requests are served or not."""


OPTIONAL = (
    ConditionType.PROMPT_CACHE_ACTIVE,
    ConditionType.PROMPTS_PRIMED,
    ConditionType.ACCELERATOR_READY,
    ConditionType.FITS_MEMORY,
)
"""Types of conditions that only some LlamaServers have."""

ALWAYS = tuple(kind for kind in ConditionType if kind not in OPTIONAL)
"""Types of conditions that each LlamaServer has."""


@dataclass(frozen=True)
class ConditionValue:
    """A condition as observed now, without the time of its last transition."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    """CamelCase, such as ModelNotFound."""
    message: str
    """For people."""


class Condition(ApiModel):
    """One condition, in the shape of metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Type of the condition: Ready, ModelReady, ReplicasReady, BalancerReady, ScalingActive,
    PromptCacheActive, PromptsPrimed, AcceleratorReady, FitsMemory or Degraded."""
    status: ConditionStatus
    """Status of the condition: True, False, or Unknown if it could not be determined."""
    reason: Annotated[
        str,
        Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ]
    """Reason for the status, one CamelCase word for programs. Example: ModelNotFound"""
    message: Annotated[str, Field(max_length=32768)]
    """Details of the status, for people."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time of the last change of the status, in RFC 3339."""
    observed_generation: Annotated[
        int, Field(default=0, ge=0, json_schema_extra={"format": "int64"})
    ]
    """metadata.generation of the spec that the condition was determined for."""


def conditions(
    values: Sequence[ConditionValue],
    previous: Sequence[Mapping[str, Any]],
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return the conditions with their transition times, which change only with the status.

    `previous` is the resource's `status.conditions` as it was read; `now` must have a time zone.
    """
    before = {condition["type"]: condition for condition in previous}
    return [
        Condition(
            type=value.type,
            status=value.status,
            reason=value.reason,
            message=value.message,
            last_transition_time=_last_transition(value, before.get(value.type), now),
            observed_generation=generation,
        )
        for value in values
    ]


def condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of this type in a status as it was read; empty where there is none."""
    return next((found for found in status.get("conditions", []) if found["type"] == kind), {})


def _last_transition(value: ConditionValue, before: Mapping[str, Any] | None, now: datetime) -> str:
    if before is not None and before["status"] == value.status:
        return str(before["lastTransitionTime"])
    return rfc3339(now)


def rfc3339(time: datetime) -> str:
    """Format a time as Kubernetes does: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
