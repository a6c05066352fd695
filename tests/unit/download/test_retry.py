import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.download.download import RetryPolicy


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [
        pytest.param(1, 0.0, 1, id="the first delay"),
        pytest.param(2, 0.0, 2, id="doubles"),
        pytest.param(3, 0.0, 4, id="doubles again"),
        pytest.param(3, 1.0, 2, id="jitter shortens it by up to half"),
        pytest.param(6, 0.0, 30, id="is capped"),
        pytest.param(60, 0.0, 30, id="stays capped"),
    ],
)
def test_the_delay_before_the_next_try(failures: int, chance: float, seconds: float) -> None:
    assert RetryPolicy().backoff.jittered(failures, chance) == seconds


@given(st.integers(1, 500), st.floats(0, 1))
def test_no_delay_is_zero_or_longer_than_the_maximum(failures: int, chance: float) -> None:
    assert 0.5 <= RetryPolicy().backoff.jittered(failures, chance) <= 30
