from collections.abc import Mapping

import pytest

from slotkeeper.scheduling.stall import StallDetector

Look = tuple[float, Mapping[str, int], int]


@pytest.mark.parametrize(
    ("looks", "quiet"),
    [
        pytest.param([(9, {}, 0)], 0, id="nothing runs"),
        pytest.param([(1, {"a": 0}, 0), (9, {"a": 0}, 0)], 9, id="nothing comes"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 5}, 0)], 8, id="nothing more comes"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 6}, 0)], 0, id="a token came"),
        pytest.param([(1, {"a": 5, "b": 0}, 0), (9, {"a": 6, "b": 0}, 0)], 0, id="to one of two"),
        pytest.param([(1, {"a": 5}, 0), (9, {"b": 0}, 1)], 0, id="one was answered"),
        pytest.param([(1, {"a": 5}, 0), (9, {"b": 0}, 0)], 8, id="one gave up, another began"),
        pytest.param([(1, {"a": 5}, 0), (9, {"a": 5, "b": 0}, 0)], 8, id="one began beside it"),
        pytest.param([(1, {"a": 5}, 0), (2, {"b": 7}, 0), (9, {"b": 7}, 0)], 7, id="one has begun"),
        pytest.param([(1, {"a": 0}, 0), (4, {}, 0), (9, {"b": 0}, 0)], 5, id="a rest between"),
    ],
)
def test_silence_lasts_from_the_last_sign_of_life(looks: list[Look], quiet: float) -> None:
    silence = StallDetector(0)
    for now, running, answers in looks:
        lasted = silence.observe(running, answers, now)

    assert lasted == quiet


def test_a_stream_of_one_token_a_second_is_never_silent_for_longer() -> None:
    silence = StallDetector(0)

    assert max(silence.observe({"a": token}, 0, float(token)) for token in range(1, 100)) == 0
