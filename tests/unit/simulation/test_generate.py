"""Traces drawn at random are the same for the same seed, and what they say they are."""

import pytest

from slotkeeper.simulation.generate import GENERATORS, draw


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_gives_one_trace(name: str) -> None:
    assert draw(name, 1) == draw(name, 1)
    assert draw(name, 1) != draw(name, 2)


@pytest.mark.parametrize("name", GENERATORS)
def test_calls_come_in_order_and_keep_a_slot_for_twelve_seconds_on_average(name: str) -> None:
    calls = draw(name, 1)

    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert sum(call.seconds for call in calls) / len(calls) == pytest.approx(12, rel=0.1)


def test_a_burst_has_thirty_times_as_many_in_its_minute() -> None:
    calls = draw("burst", 1)

    in_bursts = [call for call in calls if call.at % 1200 >= 1140]
    rates = len(in_bursts) / (9 * 60), (len(calls) - len(in_bursts)) / (9 * 1140)
    assert rates[0] / rates[1] == pytest.approx(30, rel=0.15)


def test_a_day_has_its_humps_in_working_hours() -> None:
    hours = [int(call.at // 3600) for call in draw("day", 1)]

    assert hours.count(10) > 100 * max(hours.count(3), 1)
    assert hours.count(15) > hours.count(13) > hours.count(20)


def test_a_few_sessions_have_very_many_turns() -> None:
    calls = draw("sessions", 1)

    assert 2000 < len(calls) < 6000
