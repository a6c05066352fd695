"""Validation of cron expressions and time zones."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from slotkeeper.api.validation import Rule


def _list_of(item: str) -> str:
    return f"{item}(?:,{item})*"


def _field(number: str, names: str = "") -> str:
    value = f"(?:{number}|(?i:{names}))" if names else f"(?:{number})"
    return _list_of(rf"(?:\*|{value}(?:-{value})?)(?:/[1-9][0-9]?)?")


CRON_PATTERN = " +".join(
    (
        _field("[0-5]?[0-9]"),
        _field("[01]?[0-9]|2[0-3]"),
        _field("0?[1-9]|[12][0-9]|3[01]"),
        _field("0?[1-9]|1[0-2]", "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"),
        _field("[0-7]", "sun|mon|tue|wed|thu|fri|sat"),
    )
)
"""Five fields of numbers, names, `*`, lists, ranges and steps."""


_NAMES = "janfebmaraprmayjunjulaugsepoctnovdecsunmontuewedthufrisat"
"""Months and days in order: the position of a name gives its rank."""


def _days(first: str) -> str:
    return _list_of(rf"{first}(?:-3[01])?(?:/[0-9]+)?")


_NEVER = (
    r"[^ ]+ +[^ ]+ +(?:"
    rf"{_days('3[01]')} +{_list_of('(?:0?2|feb)')}|"
    rf"{_days('31')} +{_list_of('(?:0?[2469]|11|feb|apr|jun|sep|nov)')}"
    r") +[*].*"
)
"""Days of the month that none of the months has. Only without a day of the week: cron matches
either of the two."""


def _is_ascending(cron: str) -> bool:
    numbers = re.findall(r"([0-9]+)-([0-9]+)", cron)
    names = re.findall(r"([a-z]+)-([a-z]+)", cron.lower())
    return all(int(first) <= int(last) for first, last in numbers) and all(
        _NAMES.find(first) <= _NAMES.find(last) for first, last in names
    )


def _has_next_time(cron: str) -> bool:
    try:
        return next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)), None) is not None
    except (CronSimError, ValueError):
        return False


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return name != "localtime"


ascending_ranges = Rule(
    "self.findAll('[0-9]+-[0-9]+').all(range, "
    "int(range.split('-')[0]) <= int(range.split('-')[1])) && "
    "self.lowerAscii().findAll('[a-z]+-[a-z]+').all(range, "
    f"'{_NAMES}'.indexOf(range.split('-')[0]) <= '{_NAMES}'.indexOf(range.split('-')[1]))",
    "must have ascending ranges, such as 1-5 or MON-FRI, where SUN is the first day",
    _is_ascending,
)

existing_date = Rule(
    # CEL rejects the usual spellings of a day that no month has. The operator also finds the
    # others, such as those of months with steps.
    f"!self.matches(r'(?i)^{_NEVER}$')",
    "must match a date that exists: at least one of its months must have one of its days",
    _has_next_time,
)

iana_time_zone = Rule(
    # CEL raises an error for an unknown time zone.
    "self.matches(r'^[A-Za-z0-9_+/-]+$') && self != 'Local' && "
    "timestamp('2000-06-01T00:00:00Z').getFullYear(self) == 2000",
    "must be a name in the IANA time zone database, such as Europe/Berlin",
    _is_time_zone,
)
