"""The expected wait, beside published values and beside the formula written out."""

from itertools import islice
from math import exp, factorial, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looking import policy, sample
from slotkeeper.scaling.wait import expected_waits


def written_out(load: float, n: int) -> float:
    """The share of requests that wait, as Erlang wrote it: with sums and factorials."""
    full = load**n / factorial(n) * n / (n - load)
    return full / (sum(load**k / factorial(k) for k in range(n)) + full)


def test_one_slot_is_the_queue_that_everybody_knows() -> None:
    # M/M/1 at 80 %: four service times of waiting.
    assert next(expected_waits(0.8, 1.0, 1)) == pytest.approx(4.0)


def test_twelve_slots_at_ten_erlang() -> None:
    # 44.94 % wait in the tables; of 2 s each that is 0.4494 * 2 / (12 - 10).
    waits = list(islice(expected_waits(5.0, 2.0, 4), 3))

    assert waits[:2] == [inf, inf]
    assert waits[2] == pytest.approx(0.4494, abs=1e-4)


def test_load_beyond_the_slots_waits_for_ever_and_none_not_at_all() -> None:
    assert next(expected_waits(3.0, 1.0, 3)) == inf
    assert next(expected_waits(0.0, 9.0, 3)) == 0.0


def test_as_many_replicas_are_asked_for_as_keep_the_wait_within_its_bound() -> None:
    # With one slot 1.5 s, with two 0.1 s.
    measured = sample(0, 1, 0.6, 1.0)

    asked = [policy(slots=1, maxWaitSeconds=most).for_wait(measured) for most in (2, 1)]

    assert asked == [1, 2]


def test_thousands_of_slots_are_no_trouble() -> None:
    *_, last = islice(expected_waits(900.0, 10.0, 100), 100)

    assert 0 <= last < exp(-10)


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(1, 8))
def test_it_is_erlang_c_and_falls_with_every_replica(
    arrivals: float, seconds: float, slots: int
) -> None:
    load = arrivals * seconds
    waits = list(islice(expected_waits(arrivals, seconds, slots), 12))

    assert waits == sorted(waits, reverse=True)
    for n, wait in enumerate(waits, 1):
        if load < n * slots * 0.999:
            expected = written_out(load, n * slots) * seconds / (n * slots - load)
            assert wait == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 30), st.integers(1, 20))
def test_more_arrivals_never_ask_for_fewer_replicas(
    some: float, more: float, seconds: float, demand: int
) -> None:
    spec = policy(maxReplicas=9, maxWaitSeconds=1)

    fewer = spec.asked(sample(0, demand, some, seconds))

    assert spec.asked(sample(0, demand, some + more, seconds)) >= fewer
