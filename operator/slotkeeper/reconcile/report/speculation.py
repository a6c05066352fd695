"""Speculative decoding, as the leader of the balancers reports it. Pure."""

from slotkeeper.api.conditions import ConditionType, condition
from slotkeeper.api.demand_report import SpeculationReport
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import SpeculativeStatus
from slotkeeper.desired import names
from slotkeeper.reconcile.observe.observed import Observed, updated_pods
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.reported import is_other_part, kept_part


def speculation_problem(
    server: LlamaServer, observed: Observed, report: SpeculationReport | None
) -> Problem | None:
    """Return the problem that replicas of the current spec serve without speculative decoding.

    llama-server only logs why. Without a report the last problem is kept.
    """
    if server.spec.speculative is None:
        return None
    if report is None:
        before = condition(server.status, ConditionType.DEGRADED)
        kept = before.get("reason") == Reason.SPECULATION_INACTIVE
        return Problem(Reason.SPECULATION_INACTIVE, before["message"]) if kept else None
    without = [
        pod["metadata"]["name"]
        for pod in filter(is_ready, updated_pods(observed))
        if address(pod, names.LLAMA_SERVER_PORT) in report.inactive
    ]
    if not without:
        return None
    others = f" and {len(without) - 1} more" if len(without) > 1 else ""
    return Problem(
        Reason.SPECULATION_INACTIVE,
        f"{min(without)}{others}: llama-server serves without {server.spec.speculative.type}; its "
        'log says why at "failed to initialize speculative decoding"',
    )


def speculative_status(
    server: LlamaServer, report: SpeculationReport | None
) -> SpeculativeStatus | None:
    """Return the part of the status; None without speculative decoding, or before the first
    report."""
    if server.spec.speculative is None:
        return None
    if report is None:
        return kept_part(server, "speculative", SpeculativeStatus)
    return SpeculativeStatus(
        acceptance_percent=report.acceptance_percent, inactive_replicas=len(report.inactive)
    )


def is_speculative_status_stale(server: LlamaServer, report: SpeculationReport | None) -> bool:
    """Whether the status shows other numbers than this report."""
    if server.spec.speculative is None or report is None:
        return False
    return is_other_part(server, "speculative", speculative_status(server, report))
