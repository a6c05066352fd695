"""Generated traces depend on the seed alone, and have the shape that their name promises."""

import pytest

from slotkeeper.simulation.generate import GENERATORS, generate


@pytest.mark.parametrize("name", GENERATORS)
def test_equal_seeds_generate_equal_traces(name: str) -> None:
    assert generate(name, 1) == generate(name, 1)
    assert generate(name, 1) != generate(name, 2)


@pytest.mark.parametrize("name", GENERATORS)
def test_requests_are_in_order_and_have_a_mean_service_time_of_twelve_seconds(name: str) -> None:
    requests = generate(name, 1)

    assert [request.at for request in requests] == sorted(request.at for request in requests)
    mean = sum(request.service_seconds for request in requests) / len(requests)
    assert mean == pytest.approx(12, rel=0.1)


def test_a_burst_has_thirty_times_the_arrival_rate_in_its_minute() -> None:
    requests = generate("burst", 1)

    in_bursts = [request for request in requests if request.at % 1200 >= 1140]
    rates = len(in_bursts) / (9 * 60), (len(requests) - len(in_bursts)) / (9 * 1140)
    assert rates[0] / rates[1] == pytest.approx(30, rel=0.15)


def test_a_day_has_its_peaks_in_working_hours() -> None:
    hours = [int(request.at // 3600) for request in generate("day", 1)]

    assert hours.count(10) > 100 * max(hours.count(3), 1)
    assert hours.count(15) > hours.count(13) > hours.count(20)


def test_a_few_sessions_have_very_many_turns() -> None:
    requests = generate("sessions", 1)

    assert 2000 < len(requests) < 6000
