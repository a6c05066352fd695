"""Whom to ask for numbers now: often where replicas hang on it, ever rarer who does not answer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

MAX_IDLE_POLLS = 50
"""How many that are not urgent are asked in one look: a thousand of them take turns, since each
question costs a third of a millisecond of the operator's one CPU."""

LONGEST_PAUSE = 30.0
LONGEST_URGENT_PAUSE = 4.0

Each = TypeVar("Each")


@dataclass
class PollSchedule:
    """When to ask somebody next. Times are seconds of one clock."""

    urgent: bool = True
    due: float = 0.0
    failures: int = 0

    def polled(self, now: float, *, answered: bool) -> None:
        """It was asked at `now`."""
        self.failures = 0 if answered else self.failures + 1
        longest = LONGEST_URGENT_PAUSE if self.urgent else LONGEST_PAUSE
        # The exponent is bounded for a float's sake. Answered: due at the next look.
        self.due = now + min(longest, 2.0 ** min(self.failures - 1, 16)) if self.failures else now


def due_targets(
    all_of_them: Iterable[Each], rhythm: Callable[[Each], PollSchedule], now: float
) -> list[Each]:
    """Whom to ask now: all urgent ones that are due, of the others those that waited longest."""
    due = [one for one in all_of_them if rhythm(one).due <= now]
    others = sorted((one for one in due if not rhythm(one).urgent), key=lambda one: rhythm(one).due)
    return [one for one in due if rhythm(one).urgent] + others[:MAX_IDLE_POLLS]
