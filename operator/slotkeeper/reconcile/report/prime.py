"""Priming of new replicas, as the leader of the balancers reports it. Pure."""

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition
from slotkeeper.api.demand_report import PRIME_REASONS, PrimeReport
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import PrimeStatus
from slotkeeper.reconcile.observe.problem import Problem

KIND = ConditionType.PROMPTS_PRIMED


def prime_condition(
    server: LlamaServer, report: PrimeReport | None
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with priming, and a problem to fix.

    Without a report, of a balancer that leads and primes, the last condition is kept.
    """
    if report:
        reason, message = report.reason, report.message
    else:
        before = condition(server.status, KIND)
        if before.get("reason") not in PRIME_REASONS:
            message = "waiting for the balancer's first report"
            return ConditionValue(KIND, "Unknown", Reason.STARTING, message), None
        reason, message = Reason(before["reason"]), before["message"]
    if reason is Reason.ACTIVE:
        return ConditionValue(KIND, "True", reason, message), None
    return ConditionValue(KIND, "False", reason, message), Problem(reason, message)


def prime_status(server: LlamaServer, report: PrimeReport | None) -> PrimeStatus | None:
    """Return the part of the status; None without priming, or before the first report."""
    if server.spec.prime is None:
        return None
    if report is None:
        before = server.status.get("prime")
        return None if before is None else PrimeStatus.model_validate(before)
    return PrimeStatus(
        prompts=report.prompts,
        learned=report.learned,
        tokens_last_hour=report.tokens_last_hour,
        replicas=report.replicas,
    )


def is_prime_status_stale(server: LlamaServer, report: PrimeReport | None) -> bool:
    """Whether the status shows something else than this report."""
    if server.spec.prime is None or report is None:
        return False
    shown = prime_status(server, report)
    before = condition(server.status, KIND)
    return (before.get("reason"), before.get("message")) != (report.reason, report.message) or (
        shown and shown.model_dump(by_alias=True)
    ) != server.status.get("prime")
