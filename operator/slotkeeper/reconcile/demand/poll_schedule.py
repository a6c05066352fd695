"""Whom to ask for numbers now: often where replicas hang on it, ever rarer who does not answer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from slotkeeper.backoff import Backoff

MAX_IDLE_POLLS = 50
"""How many that are not urgent are asked in one look: a thousand of them take turns, since each
question costs a third of a millisecond of the operator's one CPU."""

RETRY = Backoff(1.0, 30.0)
URGENT_RETRY = Backoff(1.0, 4.0)
"""Between two polls of a balancer that does not respond."""

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
        backoff = URGENT_RETRY if self.urgent else RETRY
        # Answered: due at the next look.
        self.due = now + backoff.delay(self.failures) if self.failures else now


def due_targets(
    all_of_them: Iterable[Each], rhythm: Callable[[Each], PollSchedule], now: float
) -> list[Each]:
    """Whom to ask now: all urgent ones that are due, of the others those that waited longest."""
    due = [one for one in all_of_them if rhythm(one).due <= now]
    others = sorted((one for one in due if not rhythm(one).urgent), key=lambda one: rhythm(one).due)
    return [one for one in due if rhythm(one).urgent] + others[:MAX_IDLE_POLLS]
