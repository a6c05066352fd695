import pytest

from slotkeeper.scheduling.stall import StallDetector, Verdict


@pytest.mark.parametrize(
    ("health", "slots", "silent", "verdict"),
    [
        (False, False, 30, Verdict.STALLED),
        (False, True, 30, Verdict.STALLED),
        (True, True, 30, Verdict.ALIVE),
        (True, True, 1000, Verdict.ALIVE),
        (True, False, 299, Verdict.ALIVE),
        (True, False, 300, Verdict.WEDGED),
    ],
)
def test_signs_of_life_have_one_verdict(
    health: bool, slots: bool, silent: float, verdict: Verdict
) -> None:
    detector = StallDetector(0)

    assert detector.judge(health=health, slots=slots, wedged=300, now=silent) is verdict


def test_any_response_of_slots_or_progress_is_a_sign_of_life() -> None:
    detector = StallDetector(0)
    detector.observe({"request": 0}, 0, 0)
    detector.judge(health=True, slots=True, wedged=300, now=200)
    assert detector.judge(health=True, slots=False, wedged=300, now=499) is Verdict.ALIVE
    detector.observe({"request": 1}, 0, 499.5)

    assert detector.judge(health=True, slots=False, wedged=300, now=799) is Verdict.ALIVE
    assert detector.judge(health=True, slots=False, wedged=300, now=800) is Verdict.WEDGED
