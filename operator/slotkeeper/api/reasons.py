"""Every reason that a condition may have: the one table that code, tests and documents go by."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.problem_reasons import Reason

READY = ConditionType.READY
MODEL = ConditionType.MODEL_READY
REPLICAS = ConditionType.REPLICAS_READY
BALANCER = ConditionType.BALANCER_READY
SCALING = ConditionType.SCALING_ACTIVE
DEGRADED = ConditionType.DEGRADED


class Severity(Enum):
    """What a reason asks of people."""

    GOOD = "nothing: so it should be"
    IN_PROGRESS = "nothing but time, or it is as somebody wants it"
    PROBLEM = "something has to be mended"


@dataclass(frozen=True)
class ReasonDoc:
    """What is to be known of some reasons."""

    conditions: tuple[ConditionType, ...]
    """Those that may have them. Ready, and Degraded for troubles, may have them as well."""
    reasons: tuple[Reason, ...]
    severity: Severity
    meaning: str
    """What it means and what helps, for people."""


_GOOD = Severity.GOOD
_IN_PROGRESS = Severity.IN_PROGRESS
_TROUBLE = Severity.PROBLEM
_PODS = (REPLICAS, BALANCER)
# A replica without its model does not serve either.
_MODEL = (MODEL, REPLICAS)

TABLE = (
    ReasonDoc((READY,), (Reason.SERVING,), _GOOD, "requests are served, by replicas as specified"),
    ReasonDoc((MODEL,), (Reason.DOWNLOADED,), _GOOD, "the model is downloaded and checked"),
    ReasonDoc(
        (REPLICAS,),
        (Reason.MINIMUM_REPLICAS_AVAILABLE,),
        _GOOD,
        "as many replicas serve as are wanted",
    ),
    ReasonDoc(
        (BALANCER,), (Reason.BALANCER_AVAILABLE,), _GOOD, "a balancer takes requests; one is enough"
    ),
    ReasonDoc((SCALING,), (Reason.VALID_METRIC_FOUND,), _GOOD, "demand says how many replicas run"),
    ReasonDoc((DEGRADED,), (Reason.AS_EXPECTED,), _GOOD, "nothing is wrong"),
    ReasonDoc((MODEL, REPLICAS), (Reason.PENDING,), _IN_PROGRESS, "nothing has begun yet"),
    ReasonDoc((MODEL,), (Reason.DOWNLOADING,), _IN_PROGRESS, "a replica downloads the model"),
    ReasonDoc(
        (*_PODS, SCALING),
        (Reason.STARTING,),
        _IN_PROGRESS,
        "pods are being started; the balancer's first numbers are awaited",
    ),
    ReasonDoc((REPLICAS,), (Reason.LOADING_MODEL,), _IN_PROGRESS, "llama-server loads the model"),
    ReasonDoc(
        (REPLICAS,),
        (Reason.ROLLING_OUT,),
        _IN_PROGRESS,
        "replicas give way to those of the new spec",
    ),
    ReasonDoc(
        (MODEL, REPLICAS),
        (Reason.SCALED_TO_ZERO,),
        _IN_PROGRESS,
        "no replica is wanted; with `autoscaling` Ready is True, since the first request starts "
        "one",
    ),
    ReasonDoc((MODEL, *_PODS, SCALING), (Reason.SUSPENDED,), _IN_PROGRESS, "`suspend` is true"),
    ReasonDoc((SCALING,), (Reason.SCALING_DISABLED,), _IN_PROGRESS, "`autoscaling` is not set"),
    ReasonDoc(
        (MODEL, BALANCER),
        (Reason.WAITING_FOR_SECRET,),
        _IN_PROGRESS,
        "a pod has no volumes yet: if it lasts, create the Secret that `model.tokenSecretRef` or "
        "`balancer.apiKeys.secretName` names",
    ),
    ReasonDoc(
        (READY,),
        (Reason.WAITING_FOR_DELETION,),
        _IN_PROGRESS,
        "children of a deleted server of the same name have yet to go",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_NOT_FOUND, Reason.MODEL_FORBIDDEN, Reason.MODEL_DOWNLOAD_REJECTED),
        _TROUBLE,
        "the message names URL and status: mend `model.url`, or name a token in "
        "`model.tokenSecretRef`",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_CHECKSUM_MISMATCH,),
        _TROUBLE,
        "the file is another one than `sha256` says; it is not served",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_NOT_GGUF,),
        _TROUBLE,
        "the URL answers with something else, often a web page",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_UNREACHABLE, Reason.MODEL_SERVER_ERROR, Reason.MODEL_DOWNLOAD_INCOMPLETE),
        _TROUBLE,
        "tried again, ever more slowly, up to every five minutes",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_URL_NOT_ALLOWED, Reason.MODEL_TOO_MANY_REDIRECTS, Reason.MODEL_SIZE_UNKNOWN),
        _TROUBLE,
        "the address, or what it answers, is not one to download from",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_TOKEN_INVALID,),
        _TROUBLE,
        "the entry that `model.tokenSecretRef` names holds no token, or more than a token",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.INSUFFICIENT_STORAGE, Reason.STORAGE_ERROR),
        _TROUBLE,
        "the node's disk, or volume",
    ),
    ReasonDoc(
        _MODEL, (Reason.MODEL_DOWNLOAD_FAILED,), _TROUBLE, "the download ended without saying why"
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.NO_MATCHING_NODE,),
        _TROUBLE,
        "no node has GPUs of `gpu.computeArch`; the message names those that there are",
    ),
    ReasonDoc(
        _PODS,
        (Reason.UNSCHEDULABLE,),
        _TROUBLE,
        "no node fits; with GPUs: `waiting for 1 nvidia.com/gpu`",
    ),
    ReasonDoc(
        (MODEL, *_PODS),
        (Reason.IMAGE_PULL_BACK_OFF,),
        _TROUBLE,
        "the message names the image: mend `image`, or the chart's `images`",
    ),
    ReasonDoc(
        (MODEL, *_PODS),
        (Reason.CREATE_CONTAINER_ERROR,),
        _TROUBLE,
        "what `podTemplate` asks for is not there; the message names it",
    ),
    ReasonDoc(
        _PODS, (Reason.CRASH_LOOP_BACK_OFF,), _TROUBLE, "the program's exit code and its last line"
    ),
    ReasonDoc(
        (REPLICAS,), (Reason.FAILED_CREATE,), _TROUBLE, "a quota or a policy refuses the pods"
    ),
    ReasonDoc(
        (SCALING,),
        (Reason.METRICS_UNAVAILABLE,),
        _TROUBLE,
        "no balancer has told its numbers since `lastTransitionTime`: replicas stay as they are",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS, SCALING),
        (Reason.INVALID_SPEC,),
        _TROUBLE,
        "the spec breaks a rule; the message names the field and what is allowed",
    ),
    ReasonDoc(
        (READY,), (Reason.NAME_CONFLICT,), _TROUBLE, "a child's name belongs to something else"
    ),
    ReasonDoc(
        (READY,),
        (Reason.APPLY_REJECTED,),
        _TROUBLE,
        "the API server refuses a child, or a policy or webhook that it asks; the message says why",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.FIELD_CONFLICT,),
        _TROUBLE,
        "somebody else, whom the message names, sets a child's field again and again: end one of "
        "the two. It is put right ever more slowly, up to every five minutes",
    ),
)

PERMANENT = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_FORBIDDEN,
        Reason.MODEL_DOWNLOAD_REJECTED,
        Reason.MODEL_CHECKSUM_MISMATCH,
        Reason.MODEL_NOT_GGUF,
        Reason.MODEL_URL_NOT_ALLOWED,
        Reason.MODEL_TOKEN_INVALID,
        Reason.MODEL_TOO_MANY_REDIRECTS,
        Reason.MODEL_SIZE_UNKNOWN,
        Reason.IMAGE_PULL_BACK_OFF,
        Reason.CREATE_CONTAINER_ERROR,
        Reason.NAME_CONFLICT,
        Reason.APPLY_REJECTED,
    }
)
"""Time does not mend these. The other troubles may pass: a GPU comes free, a cluster autoscaler
adds a node (also one of a kind that there is none of yet), a model's host comes back."""

PERMANENT_WHEN_LOOPING = frozenset({Reason.CRASH_LOOP_BACK_OFF, Reason.MODEL_DOWNLOAD_FAILED})
"""Nor these, once it has been tried again: what ended once may run the next time."""

_SORTS = {reason: row.severity for row in TABLE for reason in row.reasons}


def severity(reason: Reason) -> Severity:
    """What this reason asks of people."""
    return _SORTS[reason]


def is_allowed(condition: str, reason: str) -> bool:
    """Whether a condition of this type may have this reason."""
    rows = [row for row in TABLE if reason in row.reasons]
    if any(condition in row.conditions for row in rows):
        return True
    # Ready has the reason of what it lacks, Degraded that of what is wrong.
    if condition == DEGRADED:
        return any(row.severity is Severity.PROBLEM for row in rows)
    parts = {MODEL, REPLICAS, BALANCER}
    return condition == READY and any(
        row.severity is not Severity.GOOD and parts & {*row.conditions} for row in rows
    )


def markdown() -> Iterator[str]:
    """The rows of the documentation's table."""
    for row in TABLE:
        conditions = ", ".join(f"`{condition}`" for condition in row.conditions)
        reasons = ", ".join(f"`{reason}`" for reason in row.reasons)
        yield f"| {conditions} | {reasons} | {row.meaning} |"
