"""The active schedule, in any time zone and on the days when clocks change."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from slotkeeper.api.autoscaling import Autoscaling, Schedule
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.schedule import active_schedule

DAY = {"cron": "0 8 * * MON-FRI", "minReplicas": 4}
NIGHT = {"cron": "0 19 * * *", "minReplicas": 0, "maxReplicas": 2}


def schedules(*specs: dict[str, Any]) -> list[Schedule]:
    return [Schedule.model_validate(each) for each in specs]


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def active(text: str, *specs: dict[str, Any], zone: str = "UTC") -> str | None:
    schedule = active_schedule(schedules(*specs), at(text, zone)).schedule
    return schedule.cron if schedule else None


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-23T07:59:59", NIGHT),  # a Monday
        ("2026-11-23T08:00:00", DAY),
        ("2026-11-23T18:59:59", DAY),
        ("2026-11-23T19:00:00", NIGHT),
        ("2026-11-28T12:00:00", NIGHT),  # a Saturday
    ],
)
def test_the_schedule_that_started_last_is_active(time: str, expected: dict[str, Any]) -> None:
    assert active(time, DAY, NIGHT) == expected["cron"]


def test_of_two_that_start_together_the_later_in_the_list_is_active() -> None:
    both = schedules(DAY, {**DAY, "minReplicas": 7})

    active = active_schedule(both, at("2026-11-23T08:00:00"))

    assert active.schedule == both[1]


def test_without_schedules_none_is_active() -> None:
    assert active("2026-11-23T08:00:00") is None


def test_a_schedule_starts_by_the_clock_of_its_time_zone() -> None:
    berlin = {**DAY, "timeZone": "Europe/Berlin"}

    assert active("2026-11-23T06:59:00", berlin, {**NIGHT, "cron": "30 6 * * *"}) == "30 6 * * *"
    assert active("2026-11-23T07:00:00", berlin, {**NIGHT, "cron": "30 6 * * *"}) == DAY["cron"]


@pytest.mark.parametrize(
    ("cron", "time", "started"),
    [
        # Clocks go from 2:00 to 3:00: a time that is left out starts right after.
        ("30 2 29 3 *", "2026-03-29T01:59:00", False),
        ("30 2 29 3 *", "2026-03-29T03:00:00", True),
        # Clocks go from 3:00 back to 2:00: a time that occurs twice starts the first time.
        ("30 2 25 10 *", "2026-10-25T02:29:00", False),
        ("30 2 25 10 *", "2026-10-25T02:30:00", True),
    ],
)
def test_on_the_days_when_clocks_change(cron: str, time: str, started: bool) -> None:
    spec = {"cron": cron, "timeZone": "Europe/Berlin", "minReplicas": 1}
    before = {"cron": "0 0 1 1 *", "timeZone": "Europe/Berlin", "minReplicas": 2}

    assert (active(time, before, spec, zone="Europe/Berlin") == cron) is started


def test_a_bound_that_a_schedule_does_not_set_is_that_of_autoscaling() -> None:
    spec = Autoscaling.model_validate({"maxReplicas": 8, "schedules": [DAY, NIGHT]})

    day = Policy.at(4, spec, at("2026-11-23T12:00:00")).spec
    night = Policy.at(4, spec, at("2026-11-23T20:00:00")).spec

    assert (day.min_replicas, day.max_replicas) == (4, 8)
    assert (night.min_replicas, night.max_replicas) == (0, 2)


def test_history_is_kept_for_a_schedule_that_allows_zero() -> None:
    spec = Autoscaling.model_validate(
        {"maxReplicas": 8, "schedules": [DAY, NIGHT], "idleSeconds": 3000}
    )

    assert Policy.at(4, spec, at("2026-11-23T12:00:00")).history_seconds == 3000


@pytest.mark.parametrize(
    "day", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)]
)
@pytest.mark.parametrize("cron", ["30 2 * * *", "30 1,2,3 * * *", "*/20 2 * * *", "0 * * * *"])
def test_a_search_holds_until_the_next_start_also_when_clocks_change(
    day: datetime, cron: str
) -> None:
    both = schedules(
        {"cron": cron, "timeZone": "Europe/Berlin", "minReplicas": 1},
        {"cron": "15 * * * *", "minReplicas": 2},
    )
    held = active_schedule(both, day - timedelta(hours=3))
    searches = 0

    for minutes in range(-180, 360):
        now = day + timedelta(minutes=minutes)
        if not held.holds_at(now):
            held = active_schedule(both, now)
            searches += 1
        assert held == active_schedule(both, now)
        assert held.start <= now < held.end

    assert searches <= 40


@pytest.mark.parametrize("time", ["2026-10-25T00:45", "2026-10-25T01:20", "2026-10-25T01:45"])
def test_a_start_is_not_undone_in_the_hour_that_occurs_twice(time: str) -> None:
    spec = {"cron": "30 2 25 10 *", "timeZone": "Europe/Berlin", "minReplicas": 1}
    before = {"cron": "0 0 1 1 *", "timeZone": "Europe/Berlin", "minReplicas": 2}

    assert active(time, before, spec) == spec["cron"]
