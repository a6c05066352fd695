"""The conditions of a server, without their times. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

from slotkeeper.api.conditions import (
    ALWAYS,
    ConditionStatus,
    ConditionType,
    ConditionValue,
    condition,
)
from slotkeeper.api.demand_report import PrimeReport, PromptCacheReport, SpeculationReport
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reason_doc import Severity
from slotkeeper.api.reasons import severity
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.model_container import is_in_image, is_provided
from slotkeeper.reconcile.decide.blocker import budget_problem
from slotkeeper.reconcile.decide.replicas import NOT_AUTOSCALED, DesiredReplicas, Scaling
from slotkeeper.reconcile.downloads import text
from slotkeeper.reconcile.observe.accelerators import has_accelerators
from slotkeeper.reconcile.observe.missing_secrets import missing_secret
from slotkeeper.reconcile.observe.model import current_pods, model_status
from slotkeeper.reconcile.observe.observed import Observed, current_balancers, updated_pods
from slotkeeper.reconcile.observe.pod_problems import (
    creation_failure,
    first_problem,
    model_problem,
    pods_problem,
    unresponsive,
)
from slotkeeper.reconcile.observe.pods import address, is_downloading, is_ready, model_downloaded
from slotkeeper.reconcile.observe.prefetch import (
    FAILURES,
    Phase,
    PrefetchState,
    prefetch_state,
    reported_failure,
)
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.observe.terminating import unless_released
from slotkeeper.reconcile.report.accelerators import LogResults, accelerator_condition
from slotkeeper.reconcile.report.memory import memory_condition
from slotkeeper.reconcile.report.prime import prime_condition
from slotkeeper.reconcile.report.prompt_cache import prompt_condition
from slotkeeper.reconcile.report.serving import REASONS, Serving
from slotkeeper.reconcile.report.speculation import speculation_problem

MAX_MESSAGE = 32768
"""Characters; the CRD's schema rejects a longer message, as an admission webhook may write one."""

_OLDER_SERVES = "; replicas of an older spec still serve"


@dataclass(frozen=True)
class Problems:
    """What is wrong apart from what the children's status shows."""

    rejected: Problem | None = None
    """Why a child could not be written."""
    conflict: Problem | None = None
    """Who repeatedly changes what the operator writes."""
    serving: Serving = Serving()  # noqa: RUF009 (immutable)
    """What the balancers' reports show."""
    prompts: PromptCacheReport | None = None
    """The files of prompts; None without a current report of them."""
    prime: PrimeReport | None = None
    """Priming of new replicas, likewise."""
    speculation: SpeculationReport | None = None
    """Speculative decoding, likewise."""
    logs: LogResults = field(default_factory=dict)
    """What the start of the replicas' logs shows."""
    build: Problem | None = None
    """Published vulnerabilities of the replicas' build."""


@dataclass(frozen=True)
class ConditionResult:
    """One condition, and the problem beside it."""

    value: ConditionValue
    problem: Problem | None = None
    """A problem to fix, though the condition may be True."""
    summary: str = ""
    """The message for Ready, where the condition's own changes every other second: gateways read
    that of Ready, and each change is another pass over them."""


def condition_values(
    server: LlamaServer,
    observed: Observed,
    scaling: Scaling,
    problems: Problems,
    wall: datetime,
) -> list[ConditionValue]:
    """All conditions of a valid server, at the time of day `wall`."""
    if server.spec.suspend and not problems.rejected:
        return _suspended(server, problems.conflict)
    parts = [
        _model(server, observed, wall),
        _replicas(server, observed, scaling.desired, wall),
        _balancer(server, observed, problems.serving, wall),
    ]
    others = [_scaling(server, scaling)]
    if server.spec.prompt_cache:
        others.append(ConditionResult(*prompt_condition(server, problems.prompts)))
    if server.spec.prime:
        others.append(ConditionResult(*prime_condition(server, problems.prime)))
    if has_accelerators(server):
        others.append(ConditionResult(*accelerator_condition(server, observed, problems.logs)))
    if observed.memory:
        others.append(ConditionResult(*memory_condition(server, observed.memory)))
    found = [
        problems.rejected,
        problems.conflict,
        *(each.problem for each in [*parts, *others]),
        speculation_problem(server, observed, problems.speculation),
    ]
    return [
        _ready(server, list(map(_for_ready, parts)), problems.rejected, scaling.desired),
        *(part.value for part in [*parts, *others]),
        # Nothing hides a vulnerability: another problem may last.
        degraded_by_all([*islice(_needing_attention(found), 1), problems.build]),
    ]


def invalid(
    message: str,
    kinds: Iterable[ConditionType] = ALWAYS,
    reason: Reason = Reason.INVALID_SPEC,
) -> list[ConditionValue]:
    """All conditions, of these types, of a resource whose spec breaks a rule."""
    verdicts: dict[ConditionType, ConditionStatus] = {
        ConditionType.READY: "False",
        ConditionType.DEGRADED: "True",
    }
    return [verdict(kind, verdicts.get(kind, "Unknown"), reason, message) for kind in kinds]


def _suspended(server: LlamaServer, conflict: Problem | None) -> list[ConditionValue]:
    message = "neither replicas nor balancers run while spec.suspend is true"
    expected = verdict(ConditionType.DEGRADED, "False", Reason.AS_EXPECTED, message)
    return [
        *(
            verdict(kind, "False", Reason.SUSPENDED, message)
            for kind in _types(server)
            if kind is not ConditionType.DEGRADED
        ),
        degraded_by_all([conflict]) if conflict else expected,
    ]


def _types(server: LlamaServer) -> Iterator[ConditionType]:
    unused = {
        ConditionType.PROMPT_CACHE_ACTIVE: server.spec.prompt_cache is None,
        ConditionType.PROMPTS_PRIMED: server.spec.prime is None,
        ConditionType.ACCELERATOR_READY: not has_accelerators(server),
        ConditionType.FITS_MEMORY: not has_accelerators(server),
    }
    return (kind for kind in ConditionType if not unused.get(kind))


def _ready(
    server: LlamaServer,
    parts: Sequence[ConditionValue],
    rejected: Problem | None,
    desired: DesiredReplicas,
) -> ConditionValue:
    kind = ConditionType.READY
    if rejected:
        return _false(kind, rejected)
    # Autoscaled to zero is still Ready: the balancer queues the request and wakes a replica. Zero
    # by suspend or spec.replicas is not.
    at_zero = desired.replicas == 0 and desired.reason not in NOT_AUTOSCALED
    zero = [part for part in parts if at_zero and part.reason == Reason.SCALED_TO_ZERO]
    # So is a server whose model is being prefetched: the next request starts a replica anyway.
    exempt = zero and [*zero, *(part for part in parts if _is_prefetching(part))]
    lacking = (part for part in parts if part.status != "True" and part not in exempt)
    # A problem comes before what waits for it: no model is downloaded where no pod has a node.
    worst = min(lacking, key=lambda part: _urgency(part.reason), default=None)
    if worst:
        return verdict(kind, "False", Reason(worst.reason), worst.message)
    if zero:
        endpoint = names.client_url(server)
        message = f"scaled to zero; the next request to {endpoint} starts a replica"
        return verdict(kind, "True", Reason.SCALED_TO_ZERO, message)
    return verdict(kind, "True", Reason.SERVING, f"serving at {names.client_url(server)}")


def _for_ready(part: ConditionResult) -> ConditionValue:
    return replace(part.value, message=part.summary) if part.summary else part.value


def _is_prefetching(part: ConditionValue) -> bool:
    return part.type is ConditionType.MODEL_READY and not _is_problem(part.reason)


def degraded_by_all(problems: Iterable[Problem | None]) -> ConditionValue:
    """The condition Degraded, with the reason of the first, and the messages of all."""
    kind = ConditionType.DEGRADED
    found = list(_needing_attention(problems))
    if not found:
        return verdict(kind, "False", Reason.AS_EXPECTED, "no problems detected")
    first, *others = found
    messages = [first.message, *(f"{each.reason}: {each.message}" for each in others)]
    return verdict(kind, "True", first.reason, "; ".join(messages))


def _needing_attention(problems: Iterable[Problem | None]) -> Iterator[Problem]:
    # A reason that only waits for time is no problem.
    return (problem for problem in problems if problem and _is_problem(problem.reason))


def _model(server: LlamaServer, observed: Observed, wall: datetime) -> ConditionResult:
    if not is_in_image(server.spec):
        return _verified_model(server, observed, wall)
    message = "the model is in llama-server's image"
    return ConditionResult(verdict(ConditionType.MODEL_READY, "True", Reason.PROVIDED, message))


def _verified_model(server: LlamaServer, observed: Observed, wall: datetime) -> ConditionResult:
    kind = ConditionType.MODEL_READY
    provided = is_provided(server.spec)
    pods = current_pods(observed)
    failure = next(filter(None, map(model_problem, pods)), None)
    if any(map(model_downloaded, pods)):
        reason, message = Reason.DOWNLOADED, f"model downloaded{_verified(server)}"
        if provided:
            reason, message = Reason.PROVIDED, "model found on its claim"
        message += _context_note(server, observed)
        return ConditionResult(verdict(kind, "True", reason, message), failure)
    if failure:
        return ConditionResult(_false(kind, failure), failure)
    if any(map(is_downloading, pods)):
        summary = "verifying the model" if provided else "downloading the model"
        progress = "" if provided or observed.progress is None else text.message(observed.progress)
        value = verdict(kind, "False", Reason.DOWNLOADING, summary + progress)
        return ConditionResult(value, summary=summary)
    if missing := missing_secret(pods, server, wall):
        return ConditionResult(_false(kind, missing), missing)
    return _without_pods(server, observed, wall)


def _without_pods(server: LlamaServer, observed: Observed, wall: datetime) -> ConditionResult:
    """The model where no pod of a replica shows anything of it."""
    kind = ConditionType.MODEL_READY
    if state := prefetch_state(server, observed, wall):
        return _prefetched(server, observed, state)
    if problem := _unread(server, observed):
        return ConditionResult(_false(kind, problem), problem)
    what = "find the model on its claim" if is_provided(server.spec) else "download the model"
    if observed.current == 0:
        message = f"no replica runs to {what}"
        return ConditionResult(verdict(kind, "Unknown", Reason.SCALED_TO_ZERO, message))
    message = f"no replica has started to {what}"
    return ConditionResult(verdict(kind, "False", Reason.PENDING, message))


def _unread(server: LlamaServer, observed: Observed) -> Problem | None:
    """What the Job that reads the headers waits for, or has met, where replicas wait for it: they
    would meet the same. None where there are headers, or where the Job itself is the problem."""
    facts = observed.memory
    if facts is None or facts.unchosen is None or facts.header:
        return None
    # Until the next try ends, the last failure still explains most.
    found = facts.failure or facts.delay or reported_failure(server, of_any_generation=False)
    if found is None or found.reason not in FAILURES:
        if facts.unchosen.reason is not Reason.READING_HEADER:
            return None
        found = facts.unchosen
    message = found.message.removesuffix(_OLDER_SERVES)
    serves = any(map(is_ready, observed.replica_pods))
    return Problem(found.reason, message + _OLDER_SERVES if serves else message)


def _prefetched(server: LlamaServer, observed: Observed, state: PrefetchState) -> ConditionResult:
    kind = ConditionType.MODEL_READY
    if state.phase is Phase.SUCCEEDED:
        message = f"model prefetched{_verified(server)}{_context_note(server, observed)}"
        return ConditionResult(verdict(kind, "True", Reason.PREFETCHED, message))
    if state.problem:
        return ConditionResult(_false(kind, state.problem), state.problem)
    if any(map(is_downloading, observed.prefetch_pods)):
        summary = "prefetching the model"
        progress = "" if observed.progress is None else text.message(observed.progress)
        value = verdict(kind, "False", Reason.DOWNLOADING, summary + progress)
        return ConditionResult(value, summary=summary)
    message = f"the prefetch of the model has not started{state.delayed and f': {state.delayed}'}"
    return ConditionResult(verdict(kind, "False", Reason.PENDING, message))


def _verified(server: LlamaServer) -> str:
    """What can be said of a downloaded file: without a SHA-256 it may be any."""
    model = server.spec.model
    return " and verified" if model.sha256 or model.parts_sha256 else ""


def _context_note(server: LlamaServer, observed: Observed) -> str:
    trained = model_status(server, observed).context_length
    slot = server.spec.context_tokens
    if trained is None or slot <= trained:
        return ""
    return f"; contextPerSlot is {slot}, but the model was trained for {trained} tokens"


def _replicas(
    server: LlamaServer, observed: Observed, desired: DesiredReplicas, wall: datetime
) -> ConditionResult:
    kind = ConditionType.REPLICAS_READY
    exceeding = budget_problem(observed, desired) if observed.replicas else None
    if problem := observed.unchosen or exceeding:
        return ConditionResult(_false(kind, problem), problem)
    if observed.replicas is None:
        message = "no replica has been started"
        return ConditionResult(verdict(kind, "False", Reason.PENDING, message))
    status = observed.replicas.get("status", {})
    before = condition(server.status, kind)
    failure = creation_failure([observed.replicas, *observed.workers], observed.replica_sets)
    failure = failure or _pods_problem(server, observed, wall)
    counted = status.get("observedGeneration", 0) >= observed.replicas["metadata"]["generation"]
    if not counted and before.get("observedGeneration") == server.generation:
        # Kubernetes has not counted the replicas that were added: nothing is less ready for that.
        return ConditionResult(_kept(kind, before), failure)
    # A busy server that grows beyond its minimum is no less ready. But with the first replica of
    # none its requests wait.
    first = 0 if desired.reason in NOT_AUTOSCALED else min(observed.current or 0, 1)
    needed = max(desired.minimum, first)
    ready = status.get("readyReplicas", 0)
    updated = status.get("updatedReplicas", 0)
    message = f"{ready} of {observed.current} replicas ready"
    rest = f"; {failure.message}" if failure else ""
    if counted and min(ready, updated) >= needed and updated == status.get("replicas", 0):
        reason = Reason.MINIMUM_REPLICAS_AVAILABLE if observed.current else Reason.SCALED_TO_ZERO
        return ConditionResult(verdict(kind, "True", reason, message + rest), failure)
    if failure:
        return ConditionResult(verdict(kind, "False", failure.reason, message + rest), failure)
    if ready >= needed:
        reason = Reason.ROLLING_OUT
        rest = f", {updated} of them updated"
    elif any(map(model_downloaded, current_pods(observed))):
        reason = Reason.LOADING_MODEL
        rest = "; loading the model"
    else:
        reason = Reason.STARTING
    return ConditionResult(verdict(kind, "False", reason, message + rest))


def _pods_problem(server: LlamaServer, observed: Observed, wall: datetime) -> Problem | None:
    # What keeps a pod of an older template from running is no problem of the current spec.
    pods = updated_pods(observed) or [*observed.worker_pods, *observed.replica_pods]
    found = pods_problem(pods, server.spec.gpu, observed.compute_arches, observed.too_small_memory)
    found = unless_released(found, observed, wall) or missing_secret(pods, server, wall)
    if found or not observed.unresponsive:
        return found
    # Their /health responds, so that the pods are ready.
    wedged = [
        pod["metadata"]["name"]
        for pod in filter(is_ready, observed.replica_pods)
        if address(pod, names.LLAMA_SERVER_PORT) in observed.unresponsive
    ]
    return unresponsive(wedged, "/slots") if wedged else None


def _balancer(
    server: LlamaServer, observed: Observed, serving: Serving, wall: datetime
) -> ConditionResult:
    kind = ConditionType.BALANCER_READY
    # Those of an older template may have access rules that are not in force any more.
    updated = current_balancers(observed)
    pods = updated or observed.balancer_pods
    ready = sum(map(is_ready, updated))
    failure = creation_failure([observed.balancers], observed.replica_sets)
    failure = failure or first_problem(pods, Gpu(count=0)) or missing_secret(pods, server, wall)
    message = f"{ready}/{server.spec.balancer.replicas} balancers available"
    before = condition(server.status, kind)
    if ready and serving.problem:
        return ConditionResult(_false(kind, serving.problem), serving.problem)
    if ready and not serving.known and before.get("reason") in REASONS:
        kept = Problem(Reason(before["reason"]), before["message"])
        return ConditionResult(_kept(kind, before), kept)
    if ready:
        # One is enough: the others are standbys.
        rest = f"; {failure.message}" if failure else ""
        value = verdict(kind, "True", Reason.BALANCER_AVAILABLE, message + rest)
        return ConditionResult(value, failure)
    if failure:
        return ConditionResult(_false(kind, failure), failure)
    if any(map(is_ready, observed.balancer_pods)):
        return ConditionResult(verdict(kind, "False", Reason.ROLLING_OUT, f"{message} and updated"))
    return ConditionResult(verdict(kind, "False", Reason.STARTING, "starting the balancers"))


def _scaling(server: LlamaServer, scaling: Scaling) -> ConditionResult:
    kind = ConditionType.SCALING_ACTIVE
    before = condition(server.status, kind)
    if scaling.desired.reason in NOT_AUTOSCALED:
        message = "autoscaling is not set; spec.replicas is the number of replicas"
        return ConditionResult(verdict(kind, "False", Reason.SCALING_DISABLED, message))
    if scaling.desired.has_metrics:
        message = "the number of replicas follows the balancer's metrics"
        return ConditionResult(verdict(kind, "True", Reason.VALID_METRIC_FOUND, message))
    had_metrics = before.get("reason") in {Reason.VALID_METRIC_FOUND, Reason.METRICS_UNAVAILABLE}
    unavailable = Problem(
        Reason.METRICS_UNAVAILABLE, "no metrics from any balancer; keeping the replica count"
    )
    if scaling.warming_up and had_metrics:
        was_unavailable = before["reason"] == unavailable.reason
        return ConditionResult(_kept(kind, before), unavailable if was_unavailable else None)
    if scaling.warming_up or not (had_metrics or server.status.get("readyReplicas")):
        message = "waiting for the balancer's first metrics"
        return ConditionResult(verdict(kind, "Unknown", Reason.STARTING, message))
    return ConditionResult(_false(kind, unavailable), unavailable)


def _urgency(reason: str) -> int:
    """The lower, the more it explains. What others have to do does not wait for time alone."""
    if _is_problem(reason):
        return 0
    return 1 if reason in {Reason.WAITING_FOR_SECRET, Reason.SCHEDULING_GATED} else 2


def _is_problem(reason: str) -> bool:
    return severity(Reason(reason)) is Severity.PROBLEM


def _false(kind: ConditionType, problem: Problem) -> ConditionValue:
    return verdict(kind, "False", problem.reason, problem.message)


def _kept(kind: ConditionType, before: Mapping[str, Any]) -> ConditionValue:
    return ConditionValue(kind, before["status"], before["reason"], before["message"])


def verdict(
    kind: ConditionType, status: ConditionStatus, reason: Reason, message: str
) -> ConditionValue:
    """A condition, with its message cut where the schema would reject it."""
    return ConditionValue(kind, status, reason.value, message[:MAX_MESSAGE])
