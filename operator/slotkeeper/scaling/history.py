"""The required replicas over time, and the changes that were made."""

from collections.abc import Iterable
from dataclasses import dataclass

from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS


@dataclass(frozen=True)
class Interval:
    """A time in which every sample required the same number of replicas."""

    start: float
    end: float
    replicas: int


@dataclass(frozen=True)
class History:
    """The required replicas of each sample since the last gap between samples.

    Kept as intervals, since an idle server requires the same number for hours.
    """

    since: float = 0.0
    """Since when samples are kept without a gap; meaningless without intervals."""
    intervals: tuple[Interval, ...] = ()
    """In order of time."""

    def record(self, at: float, replicas: int, *, keep: float) -> "History":
        """Return the history with one more sample, less what ended more than `keep` s before it."""
        if not self.intervals or not 0 <= at - self.intervals[-1].end <= PEAK_WINDOW_SECONDS:
            return History(at, (Interval(at, at, replicas),))
        *before, last = self.intervals
        if last.replicas == replicas:
            last = Interval(last.start, at, replicas)
        else:
            before = [*before, last]
            last = Interval(at, at, replicas)
        kept = (each for each in before if each.end >= at - keep)
        return History(max(self.since, at - keep), (*kept, last))

    def max_since(self, start: float) -> int | None:
        """Return the maximum since `start`; None if samples are missing in that time."""
        if not self.intervals or self.since > start:
            return None
        return max((each.replicas for each in self.intervals if each.end >= start), default=None)

    def min_since(self, start: float) -> int | None:
        """Return the minimum of the samples since `start`; None without any."""
        return min((each.replicas for each in self.intervals if each.end >= start), default=None)


@dataclass(frozen=True)
class Change:
    """Replicas that were added (positive) or removed (negative) at one moment."""

    at: float
    replicas: int


def net_change_since(changes: Iterable[Change], start: float) -> int:
    """Return the sum of the changes after `start`, exclusive."""
    return sum(change.replicas for change in changes if change.at > start)
