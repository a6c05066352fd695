"""Poll schedule: every second for autoscaled servers, exponential back-off for balancers that do
not respond."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from slotkeeper.backoff import Backoff

MAX_IDLE_POLLS = 50
"""Servers without autoscaling that are polled in one round. A thousand of them take turns, since
each poll costs a third of a millisecond of the operator's one CPU."""

RETRY = Backoff(1.0, 30.0)
URGENT_RETRY = Backoff(1.0, 4.0)
"""Between two polls of a balancer that does not respond."""

Target = TypeVar("Target")


@dataclass
class PollSchedule:
    """When to poll one server's balancers next. Times are seconds on one clock."""

    urgent: bool = True
    """Whether the number of replicas depends on it."""
    due: float = 0.0
    failures: int = 0
    """Polls without a response in a row."""

    def polled(self, now: float, *, responded: bool) -> None:
        """Record a poll at `now`. After a response the next round is due."""
        self.failures = 0 if responded else self.failures + 1
        backoff = URGENT_RETRY if self.urgent else RETRY
        self.due = now + backoff.delay(self.failures) if self.failures else now


def due_targets(
    targets: Iterable[Target], schedule: Callable[[Target], PollSchedule], now: float
) -> list[Target]:
    """The targets to poll now: all urgent ones that are due, and of the others the longest due."""
    due = [target for target in targets if schedule(target).due <= now]
    urgent = [target for target in due if schedule(target).urgent]
    others = [target for target in due if not schedule(target).urgent]
    others.sort(key=lambda target: schedule(target).due)
    return urgent + others[:MAX_IDLE_POLLS]
