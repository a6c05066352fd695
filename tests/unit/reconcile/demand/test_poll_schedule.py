"""Which balancers are polled now."""

import pytest

from slotkeeper.reconcile.demand.poll_schedule import MAX_IDLE_POLLS, PollSchedule, due_targets


def due(schedules: list[PollSchedule], now: float) -> list[PollSchedule]:
    return due_targets(schedules, lambda schedule: schedule, now)


def test_a_balancer_that_responds_is_polled_in_each_round() -> None:
    schedule = PollSchedule()

    schedule.polled(5.0, responded=True)

    assert due([schedule], 6.0) == [schedule]


@pytest.mark.parametrize(
    ("urgent", "delays"), [(False, [1, 2, 4, 8, 16, 30, 30]), (True, [1, 2, 4, 4])]
)
def test_a_balancer_that_does_not_respond_is_polled_with_a_back_off(
    urgent: bool, delays: list[float]
) -> None:
    schedule, now, found = PollSchedule(urgent=urgent), 0.0, list[float]()

    for _ in delays:
        schedule.polled(now, responded=False)
        found.append(schedule.due - now)
        now = schedule.due

    assert found == delays
    assert due([schedule], now - 0.5) == []


def test_ten_thousand_failures_do_not_overflow_the_back_off() -> None:
    schedule = PollSchedule(failures=10_000)

    schedule.polled(1.0, responded=False)

    assert schedule.due == 5.0


def test_one_response_ends_the_back_off() -> None:
    schedule = PollSchedule(failures=7)

    schedule.polled(3.0, responded=True)

    assert (schedule.failures, due([schedule], 3.0)) == (0, [schedule])


def test_schedules_that_are_not_urgent_take_turns_and_none_is_left_out() -> None:
    schedules = [PollSchedule(urgent=False) for _ in range(3 * MAX_IDLE_POLLS)]
    polled = list[int]()

    for now in range(3):
        turn = due(schedules, now)
        assert len(turn) == MAX_IDLE_POLLS
        polled.extend(map(id, turn))
        for schedule in turn:
            schedule.polled(now + 1.0, responded=True)

    assert set(polled) == set(map(id, schedules))


def test_all_urgent_schedules_are_due_in_each_round() -> None:
    schedules = [PollSchedule() for _ in range(2 * MAX_IDLE_POLLS)]

    assert len(due([*schedules, PollSchedule(urgent=False)], 0.0)) == 2 * MAX_IDLE_POLLS + 1
