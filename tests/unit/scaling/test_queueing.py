"""Expected waits, compared to published values and to the formula written out."""

from itertools import islice
from math import factorial, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_samples import policy, sample
from slotkeeper.scaling.queueing import drain_time, erlang_c_waits, slots_for_wait
from slotkeeper.scaling.sample import Sample


def probability_of_a_wait(load: float, n: int) -> float:
    """The probability of a wait, as Erlang wrote it: with sums and factorials."""
    full = load**n / factorial(n) * n / (n - load)
    return full / (sum(load**k / factorial(k) for k in range(n)) + full)


def test_one_slot_is_an_m_m_1_queue() -> None:
    # M/M/1 at 80 %: four service times.
    assert next(erlang_c_waits(0.8, 1.5, 1)) == pytest.approx(0.8 / 0.2 * 1.5)


def test_twelve_slots_at_ten_erlang() -> None:
    waits = list(islice(erlang_c_waits(10.0, 2.0, 4), 3))

    assert waits[:2] == [inf, inf]
    # 0.4494 wait, as in the published tables, each for half a service time on average.
    assert waits[2] == pytest.approx(0.4494 * 2.0 / (12 - 10), abs=1e-4)


def test_the_wait_is_infinite_at_or_above_full_load_and_0_without_load() -> None:
    assert next(erlang_c_waits(3.0, 1.0, 3)) == inf
    assert next(erlang_c_waits(0.0, 9.0, 3)) == 0.0


def test_the_required_replicas_keep_the_mean_wait_within_the_maximum() -> None:
    # At 0.9 Erlang and 9 s of service time the mean wait is 81 s with one slot, 2.3 s with two.
    measured = sample(0, 1, 0.9, 9.0)

    required = [
        policy(slots=1, maxWaitSeconds=maximum).for_queue_wait(measured)
        for maximum in (82, 80, 3, 2)
    ]

    assert required == [1, 2, 2, 3]


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_no_wait_is_expected_without_a_measured_service_time(seconds: float | None) -> None:
    assert policy(slots=1).for_queue_wait(sample(0, 1, 0.6, seconds)) == 0


def test_thousands_of_slots_do_not_overflow() -> None:
    *_, last = islice(erlang_c_waits(9000.0, 10.0, 100), 100)

    assert 0 <= last < 1e-5


def test_the_drain_time_is_the_wait_of_the_last_queued_request() -> None:
    # Two slots with a service time of 6 s: one is released every 3 s.
    assert drain_time(7, 6.0, 2) == 15.0
    assert drain_time(2, 6.0, 2) == 0.0


@pytest.mark.parametrize(
    ("demand", "seconds", "oldest", "required"),
    [
        pytest.param(10, 6.0, 0.0, 1, id="with four slots the sixth waits for 9 s"),
        pytest.param(11, 6.0, 0.0, 2, id="the seventh would wait for 10.5 s"),
        pytest.param(100, 6.0, 0.0, 10, id="ninety share forty slots"),
        pytest.param(100, 90.0, 0.0, 23, id="long service times need nearly a slot each"),
        pytest.param(5, 6.0, 10.0, 1, id="waited for exactly the maximum"),
        pytest.param(5, 6.0, 10.1, 2, id="waited longer"),
        pytest.param(5, None, 0.0, 2, id="no measured service time"),
        pytest.param(5, 0.0, 0.0, 2, id="a service time of 0"),
        pytest.param(4, 600.0, 0.0, 1, id="each request has a slot"),
    ],
)
def test_a_queue_requires_replicas_if_it_would_wait_too_long(
    demand: int, seconds: float | None, oldest: float, required: int
) -> None:
    measured = sample(0, demand, 0.0, seconds, oldest)

    assert policy(maxReplicas=30, maxWaitSeconds=10).for_demand(measured) == required


@pytest.mark.parametrize(
    ("demand", "mean", "seconds", "required"),
    [
        pytest.param(4, 1.0, 40.0, 1, id="it would get a slot in 10 s"),
        pytest.param(4, 1.0, 41.0, 2, id="it would wait longer"),
        pytest.param(3, 3.0, 600.0, 1, id="a slot is free for it"),
        pytest.param(4, 0.5, 79.0, 1, id="a probability of one half, and a wait below 20 s"),
        pytest.param(4, 0.5, 81.0, 2, id="a probability of one half, and a wait above 20 s"),
        pytest.param(4, 0.0, 600.0, 1, id="no arrival is expected"),
        pytest.param(4, 4.0, None, 1, id="no measured service time"),
    ],
)
def test_the_next_arrival_requires_a_replica_if_it_would_wait_too_long(
    demand: int, mean: float, seconds: float | None, required: int
) -> None:
    measured = sample(0, demand, mean, seconds)

    assert policy(maxReplicas=30, maxWaitSeconds=10).for_demand(measured) == required


@given(st.integers(0, 50), st.floats(0, 9), st.floats(0, 99), st.floats(0, 9), st.floats(0, 9))
def test_a_longer_wait_never_requires_fewer_replicas(
    demand: int, mean: float, seconds: float, oldest: float, longer: float
) -> None:
    spec = policy(maxReplicas=30, maxWaitSeconds=5)

    required = [
        spec.for_demand(sample(0, demand, mean, seconds, each))
        for each in (oldest, oldest + longer)
    ]

    assert required == sorted(required)


@given(st.integers(1, 500), st.floats(0.1, 600), st.integers(1, 3600))
def test_slots_for_wait_is_the_inverse_of_the_drain_time(
    demand: int, service_seconds: float, seconds: int
) -> None:
    slots = slots_for_wait(demand, service_seconds, seconds)

    # A fraction of a slot serves at that fraction of its rate.
    assert (demand - slots) * service_seconds / slots == pytest.approx(seconds, rel=1e-6)


@given(st.integers(0, 500), st.floats(0.1, 600), st.integers(1, 60), st.integers(1, 32))
def test_the_replicas_required_for_a_queue_are_enough_and_one_fewer_is_not(
    demand: int, service_seconds: float, max_wait: int, slots: int
) -> None:
    spec = policy(slots=slots, maxReplicas=1000, maxWaitSeconds=max_wait)
    measured = Sample(0, 0, demand, 0.0, demand, 0, 0.0, service_seconds)

    required = spec.for_demand(measured)

    assert drain_time(demand, service_seconds, required * slots) <= max_wait * (1 + 1e-9)
    if required > 1:
        assert drain_time(demand, service_seconds, (required - 1) * slots) > max_wait * (1 - 1e-9)


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(1, 8))
def test_the_waits_are_erlang_c_and_decrease_with_every_replica(
    load: float, service_seconds: float, slots: int
) -> None:
    waits = list(islice(erlang_c_waits(load, service_seconds, slots), 12))

    assert waits == sorted(waits, reverse=True)
    for n, wait in enumerate(waits, 1):
        if load < n * slots * 0.999:
            expected = probability_of_a_wait(load, n * slots) * service_seconds / (n * slots - load)
            assert wait == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.1, 30), st.integers(1, 20))
def test_a_higher_mean_demand_never_requires_fewer_replicas(
    some: float, more: float, seconds: float, demand: int
) -> None:
    spec = policy(maxReplicas=9, maxWaitSeconds=1)

    fewer = spec.required_replicas(sample(0, demand, some, seconds))

    assert spec.required_replicas(sample(0, demand, some + more, seconds)) >= fewer
