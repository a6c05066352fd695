import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.backoff import Backoff

BACKOFF = Backoff(first=2.0, maximum=300.0)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (10**9, 300)]
)
def test_a_delay_doubles_up_to_the_maximum(failures: int, seconds: float) -> None:
    assert BACKOFF.delay(failures) == seconds


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_shortens_a_delay_by_half_at_most(failures: int, random: float) -> None:
    whole = BACKOFF.delay(failures)

    assert whole / 2 <= BACKOFF.jittered(failures, random) <= whole
