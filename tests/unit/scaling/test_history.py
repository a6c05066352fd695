from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scaling.history import History, Interval
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS

KEEP = 60.0


def recorded(samples: list[tuple[float, int]], keep: float = KEEP) -> History:
    history = History()
    for at, replicas in samples:
        history = history.record(at, replicas, keep=keep)
    return history


def test_hours_of_the_same_requirement_are_one_interval() -> None:
    history = recorded([(float(second), 2) for second in range(9000)])

    assert history.intervals == (Interval(0.0, 8999.0, 2),)


def test_a_gap_between_samples_starts_a_new_history() -> None:
    history = recorded([(0.0, 9), (1.0, 9), (1.0 + PEAK_WINDOW_SECONDS + 0.1, 1)])

    assert history.intervals == (Interval(6.1, 6.1, 1),)
    assert history.max_since(6.0) is None


def test_a_clock_that_steps_back_starts_a_new_history() -> None:
    assert recorded([(10.0, 9), (9.0, 1)]).intervals == (Interval(9.0, 9.0, 1),)


def test_a_window_longer_than_the_history_has_no_maximum() -> None:
    history = recorded([(float(second), 9 if second < 50 else 1) for second in range(200)])

    assert history.max_since(199 - KEEP) == 1
    # The nine are no longer kept: the maximum of the rest is not that of the whole window.
    assert history.max_since(10.0) is None


steps = st.lists(
    st.tuples(st.floats(0.1, PEAK_WINDOW_SECONDS - 0.1), st.integers(0, 4)), min_size=1
)


@given(steps, st.floats(0, KEEP - 1))
def test_the_intervals_agree_with_a_list_of_all_samples(
    steps: list[tuple[float, int]], window: float
) -> None:
    now, samples = 0.0, []
    for gap, replicas in steps:
        now += gap
        samples.append((now, replicas))
    start = now - window
    inside = [replicas for at, replicas in samples if at >= start]

    history = recorded(samples)

    assert history.min_since(start) == min(inside)
    assert history.max_since(start) == (max(inside) if samples[0][0] <= start else None)
