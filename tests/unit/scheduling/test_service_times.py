import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling.service_times import Arrivals, ServiceTimes


def served(turnover: ServiceTimes, *seconds: float, begin: float = 0.0) -> float:
    """One request after the other keeps a slot for so long; when the last one ends."""
    for each in seconds:
        turnover.started(begin)
        begin += each
        turnover.ended(begin)
    return begin


def test_nothing_is_known_before_a_slot_came_free() -> None:
    turnover = ServiceTimes()
    turnover.started(1.0)

    assert turnover.mean_service_seconds(9.0) is None
    assert turnover.time_for(1, now=9.0) is None


@pytest.mark.parametrize(("ends", "seconds"), [(5, None), (6, 2.0)])
def test_a_few_ends_say_nothing_of_the_rest(ends: int, seconds: float | None) -> None:
    turnover = ServiceTimes()
    now = served(turnover, *([2.0] * ends))

    assert turnover.mean_service_seconds(now) == seconds


def test_a_slot_is_kept_as_long_as_the_last_ones_were() -> None:
    turnover = ServiceTimes(ends=6)
    now = served(turnover, 100.0, 3.0, 4.0, 5.0, 6.0, 7.0)

    assert turnover.mean_service_seconds(now) == 5.0
    assert turnover.time_for(3, now=now) == 15.0


def test_while_none_is_taken_no_time_is_spent() -> None:
    turnover = ServiceTimes()
    now = served(turnover, *([2.0] * 6))

    assert turnover.mean_service_seconds(now + 3600) == 2.0


def test_longer_ones_are_noticed_while_they_run() -> None:
    turnover = ServiceTimes()
    now = served(turnover, *([1.0] * 6))
    for _ in range(4):
        turnover.started(now)

    assert turnover.mean_service_seconds(now) == 1.0
    assert turnover.mean_service_seconds(now + 5) == 5.0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 90)), min_size=20, max_size=60),
    st.integers(0, 50),
)
def test_all_that_slots_did_since_the_first_of_the_ends_counts(
    requests: list[tuple[int, int]], later: int
) -> None:
    turnover, times = ServiceTimes(ends=8), [(begin, begin + kept) for begin, kept in requests]
    now = sorted(end for _, end in times)[9] + later
    steps = [(begin, turnover.started) for begin, _ in times]
    steps += [(end, turnover.ended) for _, end in times]
    for at, step in sorted((each for each in steps if each[0] <= now), key=lambda each: each[0]):
        step(at)

    first, *ends = sorted(end for _, end in times if end <= now)[-8:]
    spent = sum(max(min(end, now) - max(begin, first), 0) for begin, end in times)
    assert turnover.mean_service_seconds(now) == pytest.approx(spent / len(ends))


def test_a_burst_is_spread_over_the_minute() -> None:
    arrivals = Arrivals()
    for _ in range(30):
        arrivals.record(100.2)

    assert arrivals.rate(100.3) == 0.5
    assert arrivals.rate(159.0) == 0.5
    assert arrivals.rate(160.0) == 0.0


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0, 100))
def test_the_rate_is_that_of_the_last_minute(gaps: list[float], later: float) -> None:
    arrivals, now, times = Arrivals(), 0.0, []
    for gap in gaps:
        now += gap
        arrivals.record(now)
        times.append(now)
    now += later

    # Whole seconds: up to one second's arrivals more or fewer.
    least = sum(1 for at in times if at > now - 59) / 60
    most = sum(1 for at in times if at > now - 61) / 60
    assert least - 1e-9 <= arrivals.rate(now) <= most + 1e-9
    assert len(arrivals._counts) <= 61


def test_a_rate_needs_no_arrivals() -> None:
    assert Arrivals().rate(5.0) == pytest.approx(0.0)
