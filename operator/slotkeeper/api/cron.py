"""Times that come again and again, as a user writes them: a cron line and a time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from slotkeeper.api.rules import Rule


def _field(number: str, names: str = "") -> str:
    one = f"(?:{number}|(?i:{names}))" if names else f"(?:{number})"
    part = rf"(?:\*|{one}(?:-{one})?)(?:/[1-9][0-9]?)?"
    return f"{part}(?:,{part})*"


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


ever_matches = Rule(
    # A backward range or the 30th of February: the operator knows them, CEL cannot.
    "true",
    "must come at some time: a range goes upward, and its day must be one of its months",
    _comes,
)

known_zone = Rule(
    # CEL raises an error where it does not know the zone.
    "self.matches(r'^[A-Za-z0-9_+/-]+$') && self != 'Local' && "
    "timestamp('2000-06-01T00:00:00Z').getFullYear(self) == 2000",
    "must be a time zone of the IANA database, such as Europe/Berlin",
    _is_zone,
)
