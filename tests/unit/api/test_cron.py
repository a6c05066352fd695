"""Which cron lines are taken: what the API server knows of them is tried in tests/api."""

from itertools import combinations

import pytest

from slotkeeper.api.cron import ever_matches, goes_upward

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@pytest.mark.parametrize(
    ("cron", "comes"),
    [
        ("0 8 29 2 *", True),
        ("0 8 30 2 *", False),
        pytest.param("0 8 30 2 MON", True, id="a day of the week comes in any month"),
        ("0 8 28-31 2 *", True),
        ("0 8 31 4,6 *", False),
        ("0 8 31 3-4 *", True),
        pytest.param("0 8 31 4-6/2 *", False, id="what only the operator knows"),
    ],
)
def test_a_day_must_be_one_of_its_months(cron: str, comes: bool) -> None:
    assert ever_matches.holds(cron) is comes


@pytest.mark.parametrize("names", [MONTHS, DAYS])
def test_named_ranges_go_upward(names: tuple[str, ...]) -> None:
    for first, last in combinations(names, 2):
        assert goes_upward.holds(f"0 8 * {first}-{last} *")
        assert not goes_upward.holds(f"0 8 * {last}-{first} *")


@pytest.mark.parametrize("cron", ["5-1 8 * * *", "0 8 * * 1,5-3/2"])
def test_a_range_of_numbers_that_goes_down_is_none(cron: str) -> None:
    assert not goes_upward.holds(cron)


def test_one_that_ends_where_it_begins_is_a_range() -> None:
    assert goes_upward.holds("0 8-8 * * fri-FRI")
