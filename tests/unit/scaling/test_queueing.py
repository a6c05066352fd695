"""Who waits too long, beside published values and beside the formula written out."""

from itertools import islice
from math import factorial, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_samples import policy, sample
from slotkeeper.scaling.queueing import drain_time, erlang_c_waits, slots_for_wait
from slotkeeper.scaling.sample import Sample


def written_out(load: float, n: int) -> float:
    """The share of requests that wait, as Erlang wrote it: with sums and factorials."""
    full = load**n / factorial(n) * n / (n - load)
    return full / (sum(load**k / factorial(k) for k in range(n)) + full)


def test_one_slot_is_the_queue_that_everybody_knows() -> None:
    # M/M/1 at 80 %: four service times.
    assert next(erlang_c_waits(0.8, 1.5, 1)) == pytest.approx(0.8 / 0.2 * 1.5)


def test_twelve_slots_at_ten_erlang() -> None:
    waits = list(islice(erlang_c_waits(10.0, 2.0, 4), 3))

    assert waits[:2] == [inf, inf]
    # 0.4494 wait, as in the published tables, and each of them for a whole service time.
    assert waits[2] == pytest.approx(0.4494 * 2.0 / (12 - 10), abs=1e-4)


def test_load_beyond_the_slots_waits_for_ever_and_none_not_at_all() -> None:
    assert next(erlang_c_waits(3.0, 1.0, 3)) == inf
    assert next(erlang_c_waits(0.0, 9.0, 3)) == 0.0


def test_as_many_replicas_are_asked_for_as_let_requests_wait_that_long_on_average() -> None:
    # At 0.9 Erlang one slot makes 9 s each wait for 81 s, two for 2.3 s.
    measured = sample(0, 1, 0.9, 9.0)

    asked = [
        policy(slots=1, maxWaitSeconds=most).for_queue_wait(measured) for most in (82, 80, 3, 2)
    ]

    assert asked == [1, 2, 2, 3]


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_nothing_is_expected_before_something_was_measured(seconds: float | None) -> None:
    assert policy(slots=1).for_queue_wait(sample(0, 1, 0.6, seconds)) == 0


def test_thousands_of_slots_are_no_trouble() -> None:
    *_, last = islice(erlang_c_waits(9000.0, 10.0, 100), 100)

    assert 0 <= last < 1e-5


def test_the_last_of_a_queue_waits_until_those_before_it_have_a_slot() -> None:
    # Two slots of 6 s each: one comes free every 3 s.
    assert drain_time(7, 6.0, 2) == 15.0
    assert drain_time(2, 6.0, 2) == 0.0


@pytest.mark.parametrize(
    ("demand", "seconds", "oldest", "asked"),
    [
        pytest.param(10, 6.0, 0.0, 1, id="four slots give the sixth its own in 9 s"),
        pytest.param(11, 6.0, 0.0, 2, id="the seventh would get it in 10.5 s"),
        pytest.param(100, 6.0, 0.0, 10, id="ninety share forty slots"),
        pytest.param(100, 90.0, 0.0, 23, id="slow ones need nearly a slot each"),
        pytest.param(5, 6.0, 10.0, 1, id="as long as it may"),
        pytest.param(5, 6.0, 10.1, 2, id="it has waited for longer"),
        pytest.param(5, None, 0.0, 2, id="nothing was measured"),
        pytest.param(5, 0.0, 0.0, 2, id="nothing that could be measured"),
        pytest.param(4, 600.0, 0.0, 1, id="each has a slot"),
    ],
)
def test_a_queue_asks_for_replicas_where_it_would_wait_too_long(
    demand: int, seconds: float | None, oldest: float, asked: int
) -> None:
    looked = sample(0, demand, 0.0, seconds, oldest)

    assert policy(maxReplicas=30, maxWaitSeconds=10).for_demand(looked) == asked


@pytest.mark.parametrize(
    ("demand", "mean", "seconds", "asked"),
    [
        pytest.param(4, 1.0, 40.0, 1, id="it would get a slot in 10 s"),
        pytest.param(4, 1.0, 41.0, 2, id="it would wait for longer"),
        pytest.param(3, 3.0, 600.0, 1, id="a slot is free for it"),
        pytest.param(4, 0.5, 79.0, 1, id="as likely as not to come, and longer than 20 s"),
        pytest.param(4, 0.5, 81.0, 2, id="likely enough for how long it would wait"),
        pytest.param(4, 0.0, 600.0, 1, id="none is expected"),
        pytest.param(4, 4.0, None, 1, id="nothing was measured"),
    ],
)
def test_the_next_one_asks_for_a_replica_where_it_would_wait_too_long(
    demand: int, mean: float, seconds: float | None, asked: int
) -> None:
    looked = sample(0, demand, mean, seconds)

    assert policy(maxReplicas=30, maxWaitSeconds=10).for_demand(looked) == asked


@given(st.integers(0, 50), st.floats(0, 9), st.floats(0, 99), st.floats(0, 9), st.floats(0, 9))
def test_who_has_waited_for_longer_never_asks_for_fewer(
    demand: int, mean: float, seconds: float, oldest: float, longer: float
) -> None:
    spec = policy(maxReplicas=30, maxWaitSeconds=5)

    asked = [
        spec.for_demand(sample(0, demand, mean, seconds, each))
        for each in (oldest, oldest + longer)
    ]

    assert asked == sorted(asked)


@given(st.integers(1, 500), st.floats(0.1, 600), st.integers(1, 3600))
def test_with_so_many_slots_the_last_waits_just_so_long(
    demand: int, slot_seconds: float, seconds: int
) -> None:
    slots = slots_for_wait(demand, slot_seconds, seconds)

    # A slot that is a part of one works as that part does.
    assert (demand - slots) * slot_seconds / slots == pytest.approx(seconds, rel=1e-6)


@given(st.integers(0, 500), st.floats(0.1, 600), st.integers(1, 60), st.integers(1, 32))
def test_what_is_asked_for_a_queue_is_enough_and_one_less_is_not(
    demand: int, slot_seconds: float, may: int, slots: int
) -> None:
    spec = policy(slots=slots, maxReplicas=1000, maxWaitSeconds=may)
    looked = Sample(0, 0, demand, 0.0, demand, 0, 0.0, slot_seconds)

    asked = spec.for_demand(looked)

    assert drain_time(demand, slot_seconds, asked * slots) <= may * (1 + 1e-9)
    if asked > 1:
        assert drain_time(demand, slot_seconds, (asked - 1) * slots) > may * (1 - 1e-9)


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(1, 8))
def test_it_is_erlang_c_and_falls_with_every_replica(load: float, held: float, slots: int) -> None:
    waits = list(islice(erlang_c_waits(load, held, slots), 12))

    assert waits == sorted(waits, reverse=True)
    for n, wait in enumerate(waits, 1):
        if load < n * slots * 0.999:
            expected = written_out(load, n * slots) * held / (n * slots - load)
            assert wait == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.1, 30), st.integers(1, 20))
def test_a_higher_mean_never_asks_for_fewer_replicas(
    some: float, more: float, seconds: float, demand: int
) -> None:
    spec = policy(maxReplicas=9, maxWaitSeconds=1)

    fewer = spec.required_replicas(sample(0, demand, some, seconds))

    assert spec.required_replicas(sample(0, demand, some + more, seconds)) >= fewer
