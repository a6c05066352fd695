"""The conditions and the status of a gateway. Pure."""

from collections.abc import Sequence
from datetime import datetime

from slotkeeper.api.conditions import ConditionType, ConditionValue, conditions
from slotkeeper.api.gateway_status import MAX_MODELS, BudgetStatus, LlamaGatewayStatus
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.gateways.observed import Observed
from slotkeeper.reconcile.observe.missing_secrets import missing_secret
from slotkeeper.reconcile.observe.pod_problems import creation_failure, first_problem
from slotkeeper.reconcile.observe.pods import is_ready
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.conditions import Problems, degraded_by_all, verdict
from slotkeeper.reconcile.report.events import EventContent, condition_events
from slotkeeper.reconcile.report.report import Report


def report(
    observed: Observed,
    problems: Problems,
    budget: BudgetStatus | None,
    events: Sequence[EventContent],
    now: datetime,
) -> Report:
    """The report on a valid gateway; `events` were caused by writes since the last one."""
    gateway = observed.gateway
    values = condition_values(observed, problems, now)
    before = gateway.status.get("conditions", [])
    models = observed.models.reported
    status = LlamaGatewayStatus(
        observed_generation=gateway.generation,
        conditions=conditions(values, before, generation=gateway.generation, now=now),
        url=names.gateway_url(gateway),
        ready_replicas=sum(map(is_ready, observed.pods)),
        models=models[:MAX_MODELS],
        model_count=len(models),
        ready_models=sum(model.state == "Ready" for model in models),
        budget=budget,
    )
    return Report(status.tree(), [*events, *condition_events(gateway.status, values)])


def condition_values(observed: Observed, problems: Problems, now: datetime) -> list[ConditionValue]:
    """All conditions of a valid gateway."""
    failure = _pods_problem(observed, now)
    batches = _batches_problem(observed, now)
    found = [problems.rejected, problems.conflict, failure, batches, *observed.models.problems]
    return [_ready(observed, problems.rejected, failure), degraded_by_all(found)]


def _ready(observed: Observed, rejected: Problem | None, failure: Problem | None) -> ConditionValue:
    kind = ConditionType.READY
    if rejected:
        return verdict(kind, "False", rejected.reason, rejected.message)
    if observed.deployment is None:
        return verdict(kind, "False", Reason.PENDING, "no gateway pod has been started")
    deployment = observed.deployment
    status = deployment.get("status", {})
    counted = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    updated, existing = status.get("updatedReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", status.get("readyReplicas", 0))
    message = f"{available}/{observed.gateway.spec.replicas} gateway pods available"
    rest = f"; {failure.message}" if failure else ""
    if counted and min(available, updated) > 0 and updated == existing:
        # One is enough: all of them do the same.
        url = names.gateway_url(observed.gateway)
        return verdict(kind, "True", Reason.SERVING, f"serving at {url}, {message}{rest}")
    if failure:
        return verdict(kind, "False", failure.reason, message + rest)
    if available:
        message += f", {updated} of them updated"
        return verdict(kind, "False", Reason.ROLLING_OUT, message)
    return verdict(kind, "False", Reason.STARTING, message)


def _pods_problem(observed: Observed, now: datetime) -> Problem | None:
    return _problem_of(observed, observed.deployment, observed.pods, now)


def _batches_problem(observed: Observed, now: datetime) -> Problem | None:
    """Only files and batches are unavailable: the gateway itself is ready."""
    problem = _problem_of(observed, observed.batches_deployment, observed.batches_pods, now)
    return problem and Problem(problem.reason, f"batches: {problem.message}")


def _problem_of(
    observed: Observed, deployment: Manifest | None, pods: Sequence[Manifest], now: datetime
) -> Problem | None:
    return (
        creation_failure([deployment], observed.replica_sets)
        or first_problem(pods, Gpu(count=0))
        or missing_secret(pods, observed.gateway, now)
    )
