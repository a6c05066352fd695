import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.balancer.policy.turnover import Arrivals, Turnover


def test_nothing_is_known_before_a_slot_came_free() -> None:
    turnover = Turnover()

    assert turnover.held is None
    assert turnover.seconds_for(1, now=9.0) is None


def test_a_slot_is_held_as_long_as_the_last_ones_were() -> None:
    turnover = Turnover(ends=2)
    for now, held in ((1.0, 100.0), (2.0, 4.0), (3.0, 6.0)):
        turnover.note(now, held)

    assert turnover.held == 5.0
    assert turnover.seconds_for(3, now=4.0) == 6.0


def test_a_burst_is_spread_over_the_minute() -> None:
    arrivals = Arrivals()
    for _ in range(30):
        arrivals.note(100.2)

    assert arrivals.rate(100.3) == 0.5
    assert arrivals.rate(159.0) == 0.5
    assert arrivals.rate(160.0) == 0.0


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0, 100))
def test_the_rate_is_that_of_the_last_minute(gaps: list[float], later: float) -> None:
    arrivals, now, times = Arrivals(), 0.0, []
    for gap in gaps:
        now += gap
        arrivals.note(now)
        times.append(now)
    now += later

    # Whole seconds: up to one second's arrivals more or fewer.
    least = sum(1 for at in times if at > now - 59) / 60
    most = sum(1 for at in times if at > now - 61) / 60
    assert least - 1e-9 <= arrivals.rate(now) <= most + 1e-9
    assert len(arrivals._counts) <= 61


def test_a_rate_needs_no_arrivals() -> None:
    assert Arrivals().rate(5.0) == pytest.approx(0.0)
