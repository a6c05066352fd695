import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.balancer.stats import median_difference, median_of, median_ratio, percentile, summary


@given(st.lists(st.integers(), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(
    values: list[int], share: float
) -> None:
    result = percentile(sorted(values), share)

    assert sum(value <= result for value in values) >= share * len(values) - 1e-6
    assert sum(value < result for value in values) < share * len(values)


def test_a_summary_is_scaled() -> None:
    result = summary([1_000_000, 3_000_000], 1e-6)

    assert (result["mean"], result["p50"], result["max"]) == pytest.approx((2, 1, 3))


def test_without_values_the_summary_is_empty() -> None:
    assert summary([]) == {}


def test_a_slow_round_does_not_change_the_ratio() -> None:
    assert median_ratio([2, 20, 2], [1, 10, 1]) == 2


def test_differences_are_computed_within_each_round() -> None:
    assert median_difference([3, 13, 4], [1, 11, 1]) == 2


def test_a_median_can_be_nested() -> None:
    samples = [{"wait": {"p99": value}} for value in (3, 1, 2)]

    assert median_of(samples, "wait", "p99") == 2
