import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling.service_times import Arrivals, ServiceTimes


def serve(times: ServiceTimes, *seconds: float) -> float:
    """Serve one request after the other, with these service times; return when the last ended."""
    now = 0.0
    for each in seconds:
        times.started(now)
        now += each
        times.ended(now)
    return now


def test_nothing_is_measured_before_the_first_completion() -> None:
    times = ServiceTimes()
    times.started(1.0)

    assert times.mean_service_seconds(9.0) is None
    assert times.time_for(1, now=9.0) is None


@pytest.mark.parametrize(("completions", "seconds"), [(5, None), (6, 2.0)])
def test_the_mean_needs_enough_completions(completions: int, seconds: float | None) -> None:
    times = ServiceTimes()
    now = serve(times, *([2.0] * completions))

    assert times.mean_service_seconds(now) == seconds


def test_the_mean_is_over_the_last_completions() -> None:
    times = ServiceTimes(window=6)
    now = serve(times, 100.0, 3.0, 4.0, 5.0, 6.0, 7.0)

    assert times.mean_service_seconds(now) == 5.0
    assert times.time_for(3, now=now) == 15.0


def test_idle_time_is_not_counted() -> None:
    times = ServiceTimes()
    now = serve(times, *([2.0] * 6))

    assert times.mean_service_seconds(now + 3600) == 2.0


def test_longer_service_times_are_noticed_while_requests_run() -> None:
    times = ServiceTimes()
    now = serve(times, *([1.0] * 6))
    for _ in range(4):
        times.started(now)

    assert times.mean_service_seconds(now) == 1.0
    assert times.mean_service_seconds(now + 5) == 5.0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 90)), min_size=20, max_size=60),
    st.integers(0, 50),
)
def test_all_slot_seconds_since_the_first_completion_of_the_window_count(
    requests: list[tuple[int, int]], later: int
) -> None:
    times = ServiceTimes(window=8)
    intervals = [(begin, begin + seconds) for begin, seconds in requests]
    now = sorted(end for _, end in intervals)[9] + later
    steps = [(begin, times.started) for begin, _ in intervals]
    steps += [(end, times.ended) for _, end in intervals]
    for at, step in sorted((each for each in steps if each[0] <= now), key=lambda each: each[0]):
        step(at)

    first, *completions = sorted(end for _, end in intervals if end <= now)[-8:]
    slot_seconds = sum(max(min(end, now) - max(begin, first), 0) for begin, end in intervals)
    assert times.mean_service_seconds(now) == pytest.approx(slot_seconds / len(completions))


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
    lower = sum(1 for at in times if at > now - 59) / 60
    upper = sum(1 for at in times if at > now - 61) / 60
    assert lower - 1e-9 <= arrivals.rate(now) <= upper + 1e-9
    assert len(arrivals._counts) <= 61


def test_the_rate_without_arrivals_is_0() -> None:
    assert Arrivals().rate(5.0) == pytest.approx(0.0)
