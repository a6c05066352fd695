"""Priming of new replicas, as the leader of the balancers reports it. Pure."""

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition
from slotkeeper.api.demand_report import PRIME_REASONS, PrimeReport
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import PrimeStatus
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.reported import is_other_part, kept_part, reported_condition

KIND = ConditionType.PROMPTS_PRIMED


def prime_condition(
    server: LlamaServer, report: PrimeReport | None
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with priming, and a problem to fix."""
    return reported_condition(server, KIND, report, PRIME_REASONS)


def prime_status(server: LlamaServer, report: PrimeReport | None) -> PrimeStatus | None:
    """Return the part of the status; None without priming, or before the first report."""
    if server.spec.prime is None:
        return None
    if report is None:
        return kept_part(server, "prime", PrimeStatus)
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
    before = condition(server.status, KIND)
    if (before.get("reason"), before.get("message")) != (report.reason, report.message):
        return True
    return is_other_part(server, "prime", prime_status(server, report))
