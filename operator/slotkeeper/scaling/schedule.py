"""Scheduled bounds: which schedule is active at a given time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from slotkeeper.api.autoscaling import Schedule

MINUTE = timedelta(minutes=1)


def active_schedule(schedules: Sequence[Schedule], now: datetime) -> Schedule | None:
    """Return the schedule that started last, at `now` or before; None if none has started.

    Of several that started together, the later in the list.
    """
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    starts = [(_last_start(each.cron, each.time_zone, minute), each) for each in schedules]
    past = [(at, number, each) for number, (at, each) in enumerate(starts) if at is not None]
    return max(past, key=lambda start: start[:2])[2] if past else None


@lru_cache(maxsize=4096)
def _last_start(cron: str, time_zone: str, minute: datetime) -> datetime | None:
    # CronSim searches strictly before a time: start from the next minute to include this one.
    local = (minute + MINUTE).astimezone(ZoneInfo(time_zone))
    start = next(CronSim(cron, local, reverse=True), None)
    return None if start is None else start.astimezone(UTC)
