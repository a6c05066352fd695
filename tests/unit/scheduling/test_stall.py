from collections.abc import Mapping

import pytest

from slotkeeper.scheduling.stall import StallDetector

Observed = tuple[float, Mapping[str, int], int]
"""When, how much each running request has received, and how many have completed."""


@pytest.mark.parametrize(
    ("observations", "stalled"),
    [
        pytest.param([(9, {}, 0)], 0, id="no request runs"),
        pytest.param([(1, {"a": 0}, 0), (9, {"a": 0}, 0)], 9, id="nothing is received"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 5}, 0)], 8, id="nothing more is received"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 6}, 0)], 0, id="a token is received"),
        pytest.param([(1, {"a": 5, "b": 0}, 0), (9, {"a": 6, "b": 0}, 0)], 0, id="by one of two"),
        pytest.param([(1, {"a": 5}, 0), (9, {"b": 0}, 1)], 0, id="one completed"),
        pytest.param([(1, {"a": 5}, 0), (9, {"b": 0}, 0)], 8, id="one aborted, another began"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 5, "b": 0}, 0)], 8, id="one began beside it"),
        pytest.param([(1, {"a": 5}, 0), (2, {"b": 7}, 0), (9, {"b": 7}, 0)], 7, id="one has begun"),
        pytest.param([(1, {"a": 0}, 0), (4, {}, 0), (9, {"b": 0}, 0)], 5, id="idle in between"),
    ],
)
def test_a_stall_lasts_from_the_last_progress(observations: list[Observed], stalled: float) -> None:
    detector = StallDetector(0)
    for now, received, completed in observations:
        seconds = detector.observe(received, completed, now)

    assert seconds == stalled


def test_a_stream_of_one_token_a_second_never_stalls() -> None:
    detector = StallDetector(0)

    assert max(detector.observe({"a": token}, 0, float(token)) for token in range(1, 100)) == 0
