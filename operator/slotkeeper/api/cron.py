"""Times that come again and again, as a user writes them: a cron line and a time zone."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from slotkeeper.api.validation import Rule


def _list_of(one: str) -> str:
    return f"{one}(?:,{one})*"


def _field(number: str, names: str = "") -> str:
    one = f"(?:{number}|(?i:{names}))" if names else f"(?:{number})"
    return _list_of(rf"(?:\*|{one}(?:-{one})?)(?:/[1-9][0-9]?)?")


CRON = " +".join(
    (
        _field("[0-5]?[0-9]"),
        _field("[01]?[0-9]|2[0-3]"),
        _field("0?[1-9]|[12][0-9]|3[01]"),
        _field("0?[1-9]|1[0-2]", "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"),
        _field("[0-7]", "sun|mon|tue|wed|thu|fri|sat"),
    )
)
"""What a cron line looks like: numbers, names, `*`, lists, ranges and steps."""


_NAMES = "janfebmaraprmayjunjulaugsepoctnovdecsunmontuewedthufrisat"
"""Months and days in order. Each name is found where it stands."""


def _days(first: str) -> str:
    return _list_of(rf"{first}(?:-3[01])?(?:/[0-9]+)?")


_NEVER = (
    r"[^ ]+ +[^ ]+ +(?:"
    rf"{_days('3[01]')} +{_list_of('(?:0?2|feb)')}|"
    rf"{_days('31')} +{_list_of('(?:0?[2469]|11|feb|apr|jun|sep|nov)')}"
    r") +[*].*"
)
"""Only days that none of the months has. With a day of the week, either may come."""


def _goes_upward(cron: str) -> bool:
    numbers = re.findall(r"([0-9]+)-([0-9]+)", cron)
    names = re.findall(r"([a-z]+)-([a-z]+)", cron.lower())
    return all(int(first) <= int(last) for first, last in numbers) and all(
        _NAMES.find(first) <= _NAMES.find(last) for first, last in names
    )


def _comes(cron: str) -> bool:
    try:
        return next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)), None) is not None
    except (CronSimError, ValueError):
        return False


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return name != "localtime"


goes_upward = Rule(
    "self.findAll('[0-9]+-[0-9]+').all(range, "
    "int(range.split('-')[0]) <= int(range.split('-')[1])) && "
    "self.lowerAscii().findAll('[a-z]+-[a-z]+').all(range, "
    f"'{_NAMES}'.indexOf(range.split('-')[0]) <= '{_NAMES}'.indexOf(range.split('-')[1]))",
    "must have ranges that go upward, such as 1-5 or MON-FRI, where SUN is the first day",
    _goes_upward,
)

ever_matches = Rule(
    # Days that no month has, as they are mostly written. The operator knows the others, too, such
    # as those of months with steps.
    f"!self.matches(r'(?i)^{_NEVER}$')",
    "must come at some time: its day must be one of its months",
    _comes,
)

known_zone = Rule(
    # CEL raises an error where it does not know the zone.
    "self.matches(r'^[A-Za-z0-9_+/-]+$') && self != 'Local' && "
    "timestamp('2000-06-01T00:00:00Z').getFullYear(self) == 2000",
    "must be a time zone of the IANA database, such as Europe/Berlin",
    _is_zone,
)
