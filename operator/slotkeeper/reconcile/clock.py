"""Time, as an argument."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Clock:
    """Both kinds of time."""

    monotonic: Callable[[], float]
    """Seconds, to measure with."""
    wall: Callable[[], datetime]
    """To show to people, and for schedules; knows its zone. It may be set at any time."""


CORRECTION = timedelta(minutes=5)
"""A clock that is set back by less was put right while the same day went on."""


class ScheduleClock:
    """The time of day by which schedules hold: the wall's, which stands still where that one is set
    back by a little, until it comes there again.

    So what a schedule has begun is not undone and begun anew, replicas and all, by a clock that is
    put right across the minute of the schedule. One that is set back by more is believed: it was
    wrong before.
    """

    def __init__(self, wall: Callable[[], datetime]) -> None:
        self._wall = wall
        self._latest: datetime | None = None

    def now(self) -> datetime:
        """The time; knows its zone."""
        now = self._wall()
        if self._latest is None or not now < self._latest < now + CORRECTION:
            self._latest = now
        return self._latest
