import pytest

from slotkeeper.llamacpp.acceptance import (
    STEP_SECONDS,
    WINDOW_SECONDS,
    AcceptanceRate,
    Guesses,
    guesses,
)
from slotkeeper.llamacpp.metrics import SummedMetrics, parse_metrics

# As of b11669, with a model as its own draft.
REPORTED = b"""\
# HELP llamacpp:spec_decode_num_draft_tokens_total Speculative: Total draft tokens generated
# TYPE llamacpp:spec_decode_num_draft_tokens_total counter
llamacpp:spec_decode_num_draft_tokens_total 41
# HELP llamacpp:spec_decode_num_accepted_tokens_total Speculative: Total draft tokens accepted by the target model
# TYPE llamacpp:spec_decode_num_accepted_tokens_total counter
llamacpp:spec_decode_num_accepted_tokens_total 39
# HELP llamacpp:spec_decode_num_accepted_tokens_per_pos_total Accepted tokens per draft position
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 6
"""  # noqa: E501 (as it is sent)


def test_the_counts_are_those_of_llama_server() -> None:
    assert guesses(parse_metrics(REPORTED)) == Guesses(41, 39)


def test_a_build_without_the_counts_has_guessed_nothing() -> None:
    assert guesses({}) == Guesses(0, 0)


@pytest.mark.parametrize(("number", "count"), [(b"1e308", 2**53), (b"-1e308", 0)])
def test_counts_beyond_all_bounds_are_bounded(number: bytes, count: int) -> None:
    found = parse_metrics(REPORTED.replace(b"total 41", b"total " + number))
    summed = SummedMetrics()
    for replica in ("a", "b"):
        summed.update(replica, found)

    assert guesses(summed.total()) == Guesses(count, 78)


def test_without_a_guess_there_is_no_rate() -> None:
    rate = AcceptanceRate()
    rate.record(Guesses(), 0)

    assert rate.percent is None


@pytest.mark.parametrize(
    ("samples", "percent"),
    [
        pytest.param([(0, 41, 39), (700, 45, 69)], 100, id="a restart between two reports"),
        pytest.param([(0, 100, 75)], 75, id="since the start"),
        pytest.param([(0, 100, 75), (300, 300, 75)], 25, id="all within the window"),
        pytest.param([(0, 100, 0), (WINDOW_SECONDS, 200, 100)], 100, id="the first has left it"),
        pytest.param([(0, 100, 0), (WINDOW_SECONDS - 1, 200, 100)], 50, id="not yet"),
        pytest.param([(0, 100, 75), (9 * WINDOW_SECONDS, 100, 75)], 75, id="kept without guesses"),
        pytest.param(
            [(0, 100, 75), (5000, 100, 75), (9000, 200, 75)], 0, id="new ones after a pause"
        ),
    ],
)
def test_the_rate_is_that_of_the_last_minutes(
    samples: list[tuple[float, int, int]], percent: int
) -> None:
    rate = AcceptanceRate()
    for now, guessed, accepted in samples:
        rate.record(Guesses(guessed, accepted), now)

    assert rate.percent == percent


def test_the_rate_may_be_asked_for_at_any_rate() -> None:
    rate = AcceptanceRate()
    for number in range(10_000):
        rate.record(Guesses(number, number // 2), number / 100)

    assert rate.percent == 50
    assert len(rate._samples) <= 10_000 / 100 / STEP_SECONDS + 1
