"""The documentation of a reason."""

from dataclasses import dataclass
from enum import Enum

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.problem_reasons import Reason


class Severity(Enum):
    """Severity of a reason, as in the reference."""

    GOOD = "ok"
    IN_PROGRESS = "in progress"
    """Or as requested by the spec, such as a suspended server."""
    PROBLEM = "problem"
    """Needs attention."""


@dataclass(frozen=True)
class ReasonDoc:
    """Documentation of one or several reasons."""

    conditions: tuple[ConditionType, ...]
    """Types that may have them, apart from Ready, and apart from Degraded for problems."""
    reasons: tuple[Reason, ...]
    severity: Severity
    meaning: str
    """Meaning and remedy, for users, in Markdown."""
