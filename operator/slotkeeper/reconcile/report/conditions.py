"""What holds of a server and what does not: its conditions without their times. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slotkeeper.api.conditions import ConditionType, ConditionValue
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reasons import Severity, severity
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.reconcile.decide.replicas import NOT_AUTOSCALED, DesiredReplicas, Scaling
from slotkeeper.reconcile.observe.model import current_pods, model_status
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import (
    Problem,
    first_problem,
    is_downloading,
    is_ready,
    missing_secret,
    missing_token,
    model_downloaded,
    model_problem,
    pods_problem,
    replica_failure,
)


@dataclass(frozen=True)
class ConditionResult:
    """One condition, and what is wrong beside it."""

    value: ConditionValue
    problem: Problem | None = None
    """What somebody has to mend. The condition may hold all the same."""


def condition_values(
    server: LlamaServer, observed: Observed, scaling: Scaling
) -> list[ConditionValue]:
    """All conditions of a valid server."""
    refused = observed.rejected
    if server.spec.suspend and not refused:
        return _suspended(observed.conflict)
    parts = [
        _model(server, observed),
        _replicas(server, observed, scaling.desired),
        _balancer(server, observed),
    ]
    scales = _scaling(server, scaling)
    return [
        _ready(server, [part.value for part in parts], refused, scaling.desired),
        *(part.value for part in parts),
        scales.value,
        _degraded([*parts, scales], refused, observed.conflict),
    ]


def invalid(message: str) -> list[ConditionValue]:
    """All conditions of a server that says what cannot be."""
    said = {ConditionType.READY: "False", ConditionType.DEGRADED: "True"}
    return [
        _value(kind, said.get(kind, "Unknown"), Reason.INVALID_SPEC, message)
        for kind in ConditionType
    ]


def condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of this type in a status as it was read; empty where there is none."""
    return next((found for found in status.get("conditions", []) if found["type"] == kind), {})


def _suspended(fought: Problem | None) -> list[ConditionValue]:
    message = "neither replicas nor balancers run while spec.suspend is true"
    return [
        _value(kind, "False", Reason.SUSPENDED, message)
        if kind is not ConditionType.DEGRADED
        else _degraded([], fought)
        if fought
        else _value(kind, "False", Reason.AS_EXPECTED, message)
        for kind in ConditionType
    ]


def _ready(
    server: LlamaServer,
    parts: Sequence[ConditionValue],
    refused: Problem | None,
    wanted: DesiredReplicas,
) -> ConditionValue:
    if refused:
        return _not(ConditionType.READY, refused)
    # One that sleeps serves, too: whoever asks is answered. At a zero of somebody else's nobody is.
    sleeps = wanted.replicas == 0 and wanted.reason not in NOT_AUTOSCALED
    asleep = [part for part in parts if sleeps and part.reason == Reason.SCALED_TO_ZERO]
    lacking = (part for part in parts if part.status != "True" and part not in asleep)
    # A trouble rather than what waits for it: no model is downloaded where no pod has a node.
    worst = min(lacking, key=lambda part: not _is_problem(part.reason), default=None)
    if worst:
        return _value(ConditionType.READY, "False", Reason(worst.reason), worst.message)
    if asleep:
        message = f"sleeps: the first request to {names.endpoint(server)} starts a replica"
        return _value(ConditionType.READY, "True", Reason.SCALED_TO_ZERO, message)
    message = f"serves at {names.endpoint(server)}"
    return _value(ConditionType.READY, "True", Reason.SERVING, message)


def _degraded(parts: Sequence[ConditionResult], *first: Problem | None) -> ConditionValue:
    kind = ConditionType.DEGRADED
    troubles = [part.problem for part in parts if part.problem]
    for trouble in (*first, *troubles):
        # What only waits for another's end is no trouble.
        if trouble and _is_problem(trouble.reason):
            return _value(kind, "True", Reason(trouble.reason), trouble.message)
    return _value(kind, "False", Reason.AS_EXPECTED, "nothing is known to be wrong")


def _model(server: LlamaServer, observed: Observed) -> ConditionResult:
    kind = ConditionType.MODEL_READY
    pods = current_pods(observed)
    failure = next(filter(None, map(model_problem, pods)), None)
    if any(map(model_downloaded, pods)):
        message = "the model is downloaded and checked" + _context_note(server, observed)
        return ConditionResult(_value(kind, "True", Reason.DOWNLOADED, message), failure)
    if failure:
        return ConditionResult(_not(kind, failure), failure)
    if any(map(is_downloading, pods)):
        message = "the model is being downloaded"
        return ConditionResult(_value(kind, "False", Reason.DOWNLOADING, message))
    if awaited := missing_token(pods, server.spec.model.secret_ref):
        return ConditionResult(_not(kind, awaited))
    if observed.current == 0:
        message = "no replica runs that would download it"
        return ConditionResult(_value(kind, "Unknown", Reason.SCALED_TO_ZERO, message))
    message = "no replica has begun to download the model"
    return ConditionResult(_value(kind, "False", Reason.PENDING, message))


def _context_note(server: LlamaServer, observed: Observed) -> str:
    trained = model_status(server, observed).context_length
    wanted = server.spec.context_per_slot
    if trained is None or wanted <= trained:
        return ""
    return f"; it was trained for {trained} tokens, contextPerSlot is {wanted}"


def _replicas(server: LlamaServer, observed: Observed, wanted: DesiredReplicas) -> ConditionResult:
    kind = ConditionType.REPLICAS_READY
    if observed.replicas is None:
        return ConditionResult(_value(kind, "False", Reason.PENDING, "no replica has been started"))
    status = observed.replicas.get("status", {})
    before = condition(server.status, kind)
    failure = replica_failure(observed.replicas) or _pods_problem(server, observed)
    seen = status.get("observedGeneration", 0) >= observed.replicas["metadata"]["generation"]
    if not seen and before.get("observedGeneration") == server.generation:
        # Kubernetes has yet to count what the scaler asked for: that makes nothing less ready.
        said = ConditionValue(kind, before["status"], before["reason"], before["message"])
        return ConditionResult(said, failure)
    # More than the least is the scaler's business: a busy server that grows is no less ready.
    # But the first one of none is what its requests wait for.
    first = 0 if wanted.reason in NOT_AUTOSCALED else min(observed.current or 0, 1)
    needed = max(wanted.minimum, first)
    ready = status.get("readyReplicas", 0)
    updated = status.get("updatedReplicas", 0)
    counted = f"{ready} of {observed.current} replicas ready"
    rest = f"; {failure.message}" if failure else ""
    if seen and min(ready, updated) >= needed and updated == status.get("replicas", 0):
        reason = Reason.MINIMUM_REPLICAS_AVAILABLE if observed.current else Reason.SCALED_TO_ZERO
        return ConditionResult(_value(kind, "True", reason, counted + rest), failure)
    if failure:
        return ConditionResult(
            _value(kind, "False", Reason(failure.reason), counted + rest), failure
        )
    if ready >= needed:
        reason = Reason.ROLLING_OUT
        rest = f", {updated} of them as specified now"
    elif any(map(model_downloaded, current_pods(observed))):
        reason = Reason.LOADING_MODEL
        rest = "; the model is being loaded"
    else:
        reason = Reason.STARTING
    return ConditionResult(_value(kind, "False", reason, counted + rest))


def _pods_problem(server: LlamaServer, observed: Observed) -> Problem | None:
    # A leader waits for its workers: their trouble is the cause.
    pods = [*observed.worker_pods, *observed.replica_pods]
    return pods_problem(pods, server.spec.gpu, observed.compute_arches)


def _balancer(server: LlamaServer, observed: Observed) -> ConditionResult:
    kind = ConditionType.BALANCER_READY
    ready = sum(map(is_ready, observed.balancer_pods))
    failure = first_problem(observed.balancer_pods, Gpu(count=0)) or missing_secret(
        observed.balancer_pods
    )
    if ready:
        # The others only stand by: one takes all requests.
        counted = f"{ready}/{server.spec.balancer.replicas} balancers take requests"
        rest = f"; {failure.message}" if failure else ""
        return ConditionResult(
            _value(kind, "True", Reason.BALANCER_AVAILABLE, counted + rest), failure
        )
    if failure:
        return ConditionResult(_not(kind, failure), failure)
    return ConditionResult(_value(kind, "False", Reason.STARTING, "the balancer is being started"))


def _scaling(server: LlamaServer, scaling: Scaling) -> ConditionResult:
    kind = ConditionType.SCALING_ACTIVE
    before = condition(server.status, kind)
    if scaling.desired.reason in NOT_AUTOSCALED:
        message = "autoscaling is not set: spec.replicas says how many replicas run"
        return ConditionResult(_value(kind, "False", Reason.SCALING_DISABLED, message))
    if scaling.desired.has_metrics:
        message = "the balancer's numbers say how many replicas run"
        return ConditionResult(_value(kind, "True", Reason.VALID_METRIC_FOUND, message))
    known = before.get("reason") in {Reason.VALID_METRIC_FOUND, Reason.METRICS_UNAVAILABLE}
    if scaling.warming_up and known:
        return ConditionResult(
            ConditionValue(kind, before["status"], before["reason"], before["message"])
        )
    if scaling.warming_up or not (known or server.status.get("readyReplicas")):
        message = "the balancer's first numbers are awaited"
        return ConditionResult(_value(kind, "Unknown", Reason.STARTING, message))
    message = "no balancer tells its numbers: the number of replicas stays as it is"
    return ConditionResult(
        _value(kind, "False", Reason.METRICS_UNAVAILABLE, message),
        Problem(Reason.METRICS_UNAVAILABLE, message),
    )


def _is_problem(reason: str) -> bool:
    return severity(Reason(reason)) is Severity.PROBLEM


def _not(kind: ConditionType, found: Problem) -> ConditionValue:
    return _value(kind, "False", Reason(found.reason), found.message)


def _value(kind: ConditionType, status: Any, reason: Reason, message: str) -> ConditionValue:
    return ConditionValue(kind, status, reason.value, message)
