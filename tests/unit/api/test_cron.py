"""Validation of cron expressions by the operator; tests/api covers that by the API server."""

from itertools import combinations

import pytest

from slotkeeper.api.cron import ascending_ranges, existing_date

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@pytest.mark.parametrize(
    ("cron", "valid"),
    [
        ("0 8 29 2 *", True),
        ("0 8 30 2 *", False),
        pytest.param("0 8 30 2 MON", True, id="a day of the week exists in any month"),
        ("0 8 28-31 2 *", True),
        ("0 8 31 4,6 *", False),
        ("0 8 31 3-4 *", True),
        pytest.param("0 8 31 4-6/2 *", False, id="found by the operator only"),
    ],
)
def test_a_day_must_be_one_of_its_months(cron: str, valid: bool) -> None:
    assert existing_date.holds(cron) is valid


@pytest.mark.parametrize("names", [MONTHS, DAYS])
def test_named_ranges_must_be_ascending(names: tuple[str, ...]) -> None:
    for first, last in combinations(names, 2):
        assert ascending_ranges.holds(f"0 8 * {first}-{last} *")
        assert not ascending_ranges.holds(f"0 8 * {last}-{first} *")


@pytest.mark.parametrize("cron", ["5-1 8 * * *", "0 8 * * 1,5-3/2"])
def test_a_descending_range_of_numbers_is_rejected(cron: str) -> None:
    assert not ascending_ranges.holds(cron)


def test_a_range_of_one_value_is_accepted() -> None:
    assert ascending_ranges.holds("0 8-8 * * fri-FRI")
