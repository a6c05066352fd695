"""Which bounds hold now, where they change with the time of day."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from slotkeeper.api.autoscaling import Schedule

MINUTE = timedelta(minutes=1)


def active_schedule(schedules: Sequence[Schedule], now: datetime) -> Schedule | None:
    """The schedule that came last, `now` included; None where none has ever come."""
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    came = [(_last(each.cron, each.time_zone, minute), each) for each in schedules]
    past = [(at, number, each) for number, (at, each) in enumerate(came) if at is not None]
    return max(past, key=lambda one: one[:2])[2] if past else None


@lru_cache(maxsize=4096)
def _last(cron: str, time_zone: str, minute: datetime) -> datetime | None:
    # It looks at what is before a time: for this very minute to count, from the next one on.
    local = (minute + MINUTE).astimezone(ZoneInfo(time_zone))
    found = next(CronSim(cron, local, reverse=True), None)
    return None if found is None else found.astimezone(UTC)
