import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling.demand import DemandStatistics, MeanDemand, PeakDemand


def test_a_short_peak_is_in_the_window_of_a_later_poll() -> None:
    peak = PeakDemand(window=5)
    peak.record(9, now=0.0)
    peak.record(0, now=0.1)

    assert peak.peak(now=5.1) == 9
    assert peak.peak(now=5.2) == 0


def test_a_constant_demand_is_its_own_peak() -> None:
    peak = PeakDemand(window=5)
    peak.record(3, now=0)

    assert peak.peak(now=100) == 3


@given(
    st.lists(st.tuples(st.floats(0, 4), st.integers(0, 9)), min_size=1, max_size=30),
    st.floats(0, 8),
)
def test_the_peak_is_the_maximum_within_the_window(
    steps: list[tuple[float, int]], later: float
) -> None:
    peak, now = PeakDemand(window=5), 0.0
    intervals = []
    for pause, demand in steps:
        now += pause
        peak.record(demand, now)
        intervals.append((now, demand))
    now += later
    ends = [*(start for start, _ in intervals[1:]), now]
    in_window = [demand for (_, demand), end in zip(intervals, ends, strict=True) if end >= now - 5]

    assert peak.peak(now) == max(in_window, default=0)


def test_a_mean_is_over_the_recorded_time_and_then_over_its_window() -> None:
    mean = MeanDemand(window=100)
    mean.record(4, now=0)
    mean.record(0, now=50)

    assert mean.mean(now=50) == 4
    assert mean.mean(now=100) == 2
    assert mean.mean(now=125) == 1
    assert mean.mean(now=150) == 0


def test_the_last_value_holds_while_the_process_is_suspended() -> None:
    demand = DemandStatistics()
    for now in range(600):
        demand.record(3, now=float(now))

    demand.record(0, now=1800.0)

    assert demand.peak(now=1800.0) == 3
    assert demand.mean(now=1800.0) == 3
    assert demand.mean(now=1801.0) > 2.9


def test_the_mean_is_0_before_the_first_record() -> None:
    mean = MeanDemand()
    assert mean.mean(now=9) == 0

    mean.record(3, now=10)
    assert mean.mean(now=10) == 3


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(0, 9)), min_size=1, max_size=60),
    st.floats(0, 150),
    st.booleans(),
)
def test_the_mean_is_that_of_the_window(
    steps: list[tuple[float, int]], later: float, polled: bool
) -> None:
    mean, now = MeanDemand(window=100, buckets=20), 0.0
    intervals = []
    for pause, demand in steps:
        now += pause
        mean.record(demand, now)
        if polled:
            mean.mean(now)
        intervals.append((now, demand))
    now += later
    start = max(intervals[0][0], now - 100)
    ends = [*(begin for begin, _ in intervals[1:]), now]
    total = sum(
        demand * max(end - max(begin, start), 0)
        for (begin, demand), end in zip(intervals, ends, strict=True)
    )

    if now > start:
        # Exact but for the one bucket of five seconds in which the window begins.
        assert mean.mean(now) == pytest.approx(total / (now - start), abs=9 * 5 / 100 + 1e-6)
    assert len(mean._sums) <= 22
