"""The files of prompts, as the leader of the balancers reports them. Pure."""

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition
from slotkeeper.api.demand_report import PROMPT_CACHE_REASONS, PromptCacheReport
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import PromptCacheStatus
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.reported import is_other_part, kept_part, reported_condition

KIND = ConditionType.PROMPT_CACHE_ACTIVE


def prompt_condition(
    server: LlamaServer, report: PromptCacheReport | None
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with a prompt cache, and a problem to fix."""
    return reported_condition(server, KIND, report, PROMPT_CACHE_REASONS)


def prompt_status(
    server: LlamaServer, report: PromptCacheReport | None
) -> PromptCacheStatus | None:
    """Return the part of the status; None without a prompt cache, or before the first report."""
    if server.spec.prompt_cache is None:
        return None
    if report is None:
        return kept_part(server, "promptCache", PromptCacheStatus)
    return PromptCacheStatus(
        total_bytes=report.bytes,
        files=report.files,
        restored_tokens_last_hour=report.restored_tokens_last_hour,
    )


def is_prompt_status_stale(server: LlamaServer, report: PromptCacheReport | None) -> bool:
    """Whether the status shows another reason or other numbers than this report."""
    if server.spec.prompt_cache is None or report is None:
        return False
    if condition(server.status, KIND).get("reason") != report.reason:
        return True
    return is_other_part(server, "promptCache", prompt_status(server, report))
