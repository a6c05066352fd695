"""What is wrong, as conditions, events and start blockers report it."""

from dataclasses import dataclass

from slotkeeper.api.problem_reasons import Reason


@dataclass(frozen=True)
class Problem:
    """Why something does not run or could not be written."""

    reason: Reason
    message: str
    """For people; what to do is its last part."""
