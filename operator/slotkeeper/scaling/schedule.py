"""Scheduled bounds: which schedule is active at a given time, and until when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from slotkeeper.api.autoscaling import Schedule

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class ActiveSchedule:
    """The schedule that is active from `start` until `end`, both of them starts of a schedule."""

    schedule: Schedule | None
    """None before any has started."""
    start: datetime
    """Inclusive."""
    end: datetime
    """Exclusive."""

    def holds_at(self, now: datetime) -> bool:
        """Whether it is active at this time too, so that it need not be searched again."""
        return self.start <= now < self.end


ALWAYS = ActiveSchedule(None, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""Without schedules."""


def active_schedule(schedules: Sequence[Schedule], now: datetime) -> ActiveSchedule:
    """Return the schedule that started last, at `now` or before.

    Of several that started together, the later in the list. A search in a schedule takes up to a
    tenth of a millisecond.
    """
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    active, start, end = ALWAYS.schedule, ALWAYS.start, ALWAYS.end
    for schedule in schedules:
        last, following = _starts_around(schedule, minute)
        if last is not None and last >= start:
            active, start = schedule, last
        end = min(end, following or end)
    return ActiveSchedule(active, start, end)


def _starts_around(schedule: Schedule, minute: datetime) -> tuple[datetime | None, datetime | None]:
    """The last start in this minute or before it, and the first start after it."""
    zone = ZoneInfo(schedule.time_zone)
    local = minute.astimezone(zone)
    # CronSim searches strictly before a time: from the next minute to include this one. Where
    # clocks are set forward or back, that of the clock and the real one differ, and for either of
    # them CronSim finds a time that has not come yet, or not the last one.
    following = {(minute + MINUTE).astimezone(zone), (local + MINUTE).replace(fold=local.fold)}
    found = (next(_starts(schedule, each, reverse=True), None) for each in following)
    before = max((start for start in found if start and start <= minute), default=None)
    for after in _starts(schedule, local):
        if after > minute:
            return before, after
        # The first of two equal times of the clock.
        before = after
    return before, None


def _starts(schedule: Schedule, begin: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    found: Iterator[datetime] = CronSim(schedule.cron, begin, reverse=reverse)
    return (start.astimezone(UTC) for start in found)
