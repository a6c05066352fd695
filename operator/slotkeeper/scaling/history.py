"""How many replicas were asked for lately, and what was done about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS


@dataclass(frozen=True)
class Interval:
    """The same number was asked for at every look of a time."""

    first: float
    last: float
    replicas: int


@dataclass(frozen=True)
class History:
    """What was asked for at each look, back to the last time that nobody looked.

    Kept as spans, since a server at rest asks for the same for hours.
    """

    since: float = 0.0
    """Since when it was looked at without a gap, and is kept; of no meaning without spans."""
    intervals: tuple[Interval, ...] = ()
    """In order of time."""

    def record(self, at: float, replicas: int, *, keep: float) -> "History":
        """The history with one more look, without what ended more than `keep` seconds before it."""
        if not self.intervals or not 0 <= at - self.intervals[-1].last <= PEAK_WINDOW_SECONDS:
            return History(at, (Interval(at, at, replicas),))
        *before, last = self.intervals
        if last.replicas == replicas:
            last = Interval(last.first, at, replicas)
        else:
            before = [*before, last]
            last = Interval(at, at, replicas)
        kept = (one for one in before if one.last >= at - keep)
        return History(max(self.since, at - keep), (*kept, last))

    def max_since(self, start: float) -> int | None:
        """The highest number since `start`; None where that was not watched all of the time."""
        if not self.intervals or self.since > start:
            return None
        return max((span.replicas for span in self.intervals if span.last >= start), default=None)

    def min_since(self, start: float) -> int | None:
        """The lowest number since `start`, as far as it was watched; None where it was not."""
        return min((span.replicas for span in self.intervals if span.last >= start), default=None)


@dataclass(frozen=True)
class Change:
    """Replicas that were added, or taken away (fewer than 0), at one moment."""

    at: float
    replicas: int


def net_change_since(changes: Iterable[Change], start: float) -> int:
    """How many more replicas there are by the changes since `start`, which itself is too old."""
    return sum(change.replicas for change in changes if change.at > start)
