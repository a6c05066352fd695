"""Time, as an argument."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Clock:
    """Both kinds of time."""

    monotonic: Callable[[], float]
    """Seconds, for durations."""
    wall: Callable[[], datetime]
    """Time of day with its zone, for timestamps and schedules. It may be set at any moment."""


@dataclass(frozen=True)
class Moment:
    """One moment, read once at the start of a pass."""

    monotonic: float
    wall: datetime
    scheduled: datetime
    """Time of day by which schedules hold: see ScheduleClock."""


CORRECTION = timedelta(minutes=5)
"""A clock that is set back by less is being corrected; the same day goes on."""


class ScheduleClock:
    """The wall clock, except that it does not follow a small step back.

    A schedule that has started is then not undone and started again, replicas and all, by a clock
    correction across its minute. After a larger step back the clock was wrong before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: datetime | None = None

    def now(self) -> Moment:
        """The current moment."""
        wall = self._clock.wall()
        if self._latest is None or not wall < self._latest < wall + CORRECTION:
            self._latest = wall
        return Moment(self._clock.monotonic(), wall, self._latest)
