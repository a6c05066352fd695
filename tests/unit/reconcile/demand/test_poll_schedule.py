"""Whom to ask for numbers now."""

import pytest

from slotkeeper.reconcile.demand.poll_schedule import MAX_IDLE_POLLS, PollSchedule, due_targets


def asked(rhythms: list[PollSchedule], now: float) -> list[PollSchedule]:
    return due_targets(rhythms, lambda rhythm: rhythm, now)


def test_who_answers_is_asked_at_each_look() -> None:
    rhythm = PollSchedule()

    rhythm.polled(5.0, answered=True)

    assert asked([rhythm], 6.0) == [rhythm]


@pytest.mark.parametrize(
    ("urgent", "pauses"), [(False, [1, 2, 4, 8, 16, 30, 30]), (True, [1, 2, 4, 4])]
)
def test_who_does_not_answer_is_asked_ever_more_rarely(urgent: bool, pauses: list[float]) -> None:
    rhythm, now, found = PollSchedule(urgent=urgent), 0.0, list[float]()

    for _ in pauses:
        rhythm.polled(now, answered=False)
        found.append(rhythm.due - now)
        now = rhythm.due

    assert found == pauses
    assert asked([rhythm], now - 0.5) == []


def test_years_of_silence_are_no_error() -> None:
    rhythm = PollSchedule(failures=10_000)

    rhythm.polled(1.0, answered=False)

    assert rhythm.due == 5.0


def test_one_answer_ends_the_pauses() -> None:
    rhythm = PollSchedule(failures=7)

    rhythm.polled(3.0, answered=True)

    assert (rhythm.failures, asked([rhythm], 3.0)) == (0, [rhythm])


def test_many_that_are_not_urgent_take_turns_and_none_is_left_out() -> None:
    rhythms = [PollSchedule(urgent=False) for _ in range(3 * MAX_IDLE_POLLS)]
    seen = list[int]()

    for now in range(3):
        turn = asked(rhythms, now)
        assert len(turn) == MAX_IDLE_POLLS
        seen.extend(map(id, turn))
        for rhythm in turn:
            rhythm.polled(now + 1.0, answered=True)

    assert set(seen) == set(map(id, rhythms))


def test_urgent_ones_are_all_asked() -> None:
    rhythms = [PollSchedule() for _ in range(2 * MAX_IDLE_POLLS)]

    assert len(asked([*rhythms, PollSchedule(urgent=False)], 0.0)) == 2 * MAX_IDLE_POLLS + 1
