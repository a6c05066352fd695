"""Conditions and parts of the status that a report of the balancers determines. Pure.

Without a report, of a balancer that leads and has the feature, what was last reported is kept.
"""

from collections.abc import Collection
from typing import Protocol, TypeVar

from slotkeeper.api.conditions import ConditionStatus, ConditionType, ConditionValue, condition
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reason_doc import Severity
from slotkeeper.api.reasons import severity
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.validation import ApiModel
from slotkeeper.reconcile.observe.problem import Problem

PartT = TypeVar("PartT", bound=ApiModel)

_STATUS: dict[Reason, ConditionStatus] = {Reason.ACTIVE: "True", Reason.NO_REPLICA: "Unknown"}
"""All other reasons are why a feature is not active."""


class Explained(Protocol):
    """A report whose reason and message are those of a condition."""

    @property
    def reason(self) -> Reason:
        """ACTIVE, or why the feature is not."""

    @property
    def message(self) -> str:
        """Details for people."""


def reported_condition(
    server: LlamaServer, kind: ConditionType, report: Explained | None, reasons: Collection[Reason]
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition, and a problem to fix. `reasons`: those of reports."""
    if report:
        reason, message = report.reason, report.message
    else:
        before = condition(server.status, kind)
        if before.get("reason") not in reasons:
            message = "waiting for the balancer's first report"
            return ConditionValue(kind, "Unknown", Reason.STARTING, message), None
        reason, message = Reason(before["reason"]), before["message"]
    problem = Problem(reason, message) if severity(reason) is Severity.PROBLEM else None
    return ConditionValue(kind, _STATUS.get(reason, "False"), reason, message), problem


def kept_part(server: LlamaServer, name: str, part: type[PartT]) -> PartT | None:
    """Return a part of the status as it is; None before the first report."""
    before = server.status.get(name)
    return None if before is None else part.model_validate(before)


def is_other_part(server: LlamaServer, name: str, part: ApiModel | None) -> bool:
    """Whether a part of the status is another one."""
    shown = part and part.model_dump(by_alias=True, exclude_none=True)
    return shown != server.status.get(name)
