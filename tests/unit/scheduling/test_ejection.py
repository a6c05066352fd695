import pytest

from slotkeeper.backoff import Backoff
from slotkeeper.scheduling.ejection import ejection_seconds


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (7, 16), (8, 30), (9, 30), (10_000, 30)],
)
def test_the_ejection_time_doubles_from_the_second_failure_on_up_to_a_limit(
    failures: int, seconds: float
) -> None:
    assert ejection_seconds(failures, Backoff(0.5, 30)) == seconds
