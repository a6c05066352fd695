from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.balancer.policy import PeakDemand


def test_a_short_peak_is_seen_by_who_looks_later() -> None:
    peak = PeakDemand(window=5)
    peak.note(9, now=0.0)
    peak.note(0, now=0.1)

    assert peak.peak(now=5.1) == 9
    assert peak.peak(now=5.2) == 0


def test_a_demand_that_lasts_is_its_own_peak() -> None:
    peak = PeakDemand(window=5)
    peak.note(3, now=0)

    assert peak.peak(now=100) == 3


@given(
    st.lists(st.tuples(st.floats(0, 4), st.integers(0, 9)), min_size=1, max_size=30),
    st.floats(0, 8),
)
def test_the_peak_is_the_highest_that_held_within_the_window(
    steps: list[tuple[float, int]], later: float
) -> None:
    peak, now = PeakDemand(window=5), 0.0
    spans = []
    for pause, demand in steps:
        now += pause
        peak.note(demand, now)
        spans.append((now, demand))
    now += later
    ends = [*(start for start, _ in spans[1:]), now]
    held = [demand for (_, demand), end in zip(spans, ends, strict=True) if end >= now - 5]

    assert peak.peak(now) == max(held, default=0)
