"""Whom to ask for numbers now."""

import pytest

from slotkeeper.reconcile.demand.poll_schedule import OTHERS_AT_ONCE, Rhythm, chosen


def asked(rhythms: list[Rhythm], now: float) -> list[Rhythm]:
    return chosen(rhythms, lambda rhythm: rhythm, now)


def test_who_answers_is_asked_at_each_look() -> None:
    rhythm = Rhythm()

    rhythm.looked(5.0, answered=True)

    assert asked([rhythm], 6.0) == [rhythm]


@pytest.mark.parametrize(
    ("urgent", "pauses"), [(False, [1, 2, 4, 8, 16, 30, 30]), (True, [1, 2, 4, 4])]
)
def test_who_does_not_answer_is_asked_ever_more_rarely(urgent: bool, pauses: list[float]) -> None:
    rhythm, now, found = Rhythm(urgent=urgent), 0.0, list[float]()

    for _ in pauses:
        rhythm.looked(now, answered=False)
        found.append(rhythm.due - now)
        now = rhythm.due

    assert found == pauses
    assert asked([rhythm], now - 0.5) == []


def test_years_of_silence_are_no_error() -> None:
    rhythm = Rhythm(failures=10_000)

    rhythm.looked(1.0, answered=False)

    assert rhythm.due == 5.0


def test_one_answer_ends_the_pauses() -> None:
    rhythm = Rhythm(failures=7)

    rhythm.looked(3.0, answered=True)

    assert (rhythm.failures, asked([rhythm], 3.0)) == (0, [rhythm])


def test_many_that_are_not_urgent_take_turns_and_none_is_left_out() -> None:
    rhythms = [Rhythm(urgent=False) for _ in range(3 * OTHERS_AT_ONCE)]
    seen = list[int]()

    for now in range(3):
        turn = asked(rhythms, now)
        assert len(turn) == OTHERS_AT_ONCE
        seen.extend(map(id, turn))
        for rhythm in turn:
            rhythm.looked(now + 1.0, answered=True)

    assert set(seen) == set(map(id, rhythms))


def test_urgent_ones_are_all_asked() -> None:
    rhythms = [Rhythm() for _ in range(2 * OTHERS_AT_ONCE)]

    assert len(asked([*rhythms, Rhythm(urgent=False)], 0.0)) == 2 * OTHERS_AT_ONCE + 1
