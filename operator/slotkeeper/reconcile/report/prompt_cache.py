"""The files of prompts, as the leader of the balancers reports them. Pure."""

from slotkeeper.api.conditions import ConditionStatus, ConditionType, ConditionValue, condition
from slotkeeper.api.demand_report import PROMPT_CACHE_REASONS, PromptCacheReport
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reason_doc import Severity
from slotkeeper.api.reasons import severity
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import PromptCacheStatus
from slotkeeper.reconcile.observe.problem import Problem

KIND = ConditionType.PROMPT_CACHE_ACTIVE

_STATUS: dict[Reason, ConditionStatus] = {Reason.ACTIVE: "True", Reason.NO_REPLICA: "Unknown"}
"""All other reasons are why prompts are not restored."""


def prompt_condition(
    server: LlamaServer, report: PromptCacheReport | None
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with a prompt cache, and a problem to fix.

    Without a report, of a balancer that leads and has the cache, the last condition is kept.
    """
    if report:
        value = ConditionValue(
            KIND, _STATUS.get(report.reason, "False"), report.reason, report.message
        )
        return value, _problem(report.reason, report.message)
    before = condition(server.status, KIND)
    if before.get("reason") not in PROMPT_CACHE_REASONS:
        message = "waiting for the balancer's first report"
        return ConditionValue(KIND, "Unknown", Reason.STARTING, message), None
    reason, message = Reason(before["reason"]), before["message"]
    return ConditionValue(KIND, before["status"], reason, message), _problem(reason, message)


def prompt_status(
    server: LlamaServer, report: PromptCacheReport | None
) -> PromptCacheStatus | None:
    """Return the part of the status; None without a prompt cache, or before the first report."""
    if server.spec.prompt_cache is None:
        return None
    if report is None:
        before = server.status.get("promptCache")
        return None if before is None else PromptCacheStatus.model_validate(before)
    return PromptCacheStatus(
        total_bytes=report.bytes,
        files=report.files,
        restored_tokens_last_hour=report.restored_tokens_last_hour,
    )


def is_prompt_status_stale(server: LlamaServer, report: PromptCacheReport | None) -> bool:
    """Whether the status shows another reason or other numbers than this report."""
    if server.spec.prompt_cache is None or report is None:
        return False
    shown = prompt_status(server, report)
    return condition(server.status, KIND).get("reason") != report.reason or (
        shown and shown.model_dump(by_alias=True)
    ) != server.status.get("promptCache")


def _problem(reason: Reason, message: str) -> Problem | None:
    return Problem(reason, message) if severity(reason) is Severity.PROBLEM else None
