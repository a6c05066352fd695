"""Who waits too long, beside published values and beside the formula written out."""

from itertools import islice
from math import exp, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looking import policy, sample
from slotkeeper.scaling.wait import late_shares


def written_out(load: float, n: int) -> float:
    """The share of requests that wait, as Erlang wrote it: with sums and factorials."""
    full = load**n / factorial(n) * n / (n - load)
    return full / (sum(load**k / factorial(k) for k in range(n)) + full)


def test_one_slot_is_the_queue_that_everybody_knows() -> None:
    # M/M/1 at 80 %: 80 % wait, and the wait's mean, of those, is five service times.
    assert next(late_shares(0.8, 1.0, 1, 0.0)) == pytest.approx(0.8)
    assert next(late_shares(0.8, 1.0, 1, 5.0)) == pytest.approx(0.8 * exp(-1))


def test_twelve_slots_at_ten_erlang() -> None:
    shares = list(islice(late_shares(10.0, 2.0, 4, 0.0), 3))

    assert shares[:2] == [1.0, 1.0]
    # As in the published tables.
    assert shares[2] == pytest.approx(0.4494, abs=1e-4)


def test_load_beyond_the_slots_waits_for_ever_and_none_not_at_all() -> None:
    assert next(late_shares(3.0, 1.0, 3, 3600.0)) == 1.0
    assert next(late_shares(0.0, 9.0, 3, 0.0)) == 0.0


def test_as_many_replicas_are_asked_for_as_let_one_in_twenty_wait_longer() -> None:
    # One slot: 0.6 * exp(-0.4 * seconds) wait longer; two: 0.1385 * exp(-1.4 * seconds).
    measured = sample(0, 1, 0.6, 1.0)

    asked = [policy(slots=1, maxWaitSeconds=most).for_wait(measured) for most in (7, 6, 1)]

    assert asked == [1, 2, 2]


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_nothing_is_expected_before_something_was_measured(seconds: float | None) -> None:
    assert policy(slots=1).for_wait(sample(0, 1, 0.6, seconds)) == 0


def test_thousands_of_slots_are_no_trouble() -> None:
    *_, last = islice(late_shares(9000.0, 10.0, 100, 0.0), 100)

    assert 0 <= last < exp(-10)


@given(st.floats(0.01, 20), st.floats(0.1, 50), st.integers(1, 8), st.floats(0, 20))
def test_it_is_erlang_c_and_falls_with_every_replica(
    load: float, held: float, slots: int, seconds: float
) -> None:
    shares = list(islice(late_shares(load, held, slots, seconds), 12))

    assert shares == sorted(shares, reverse=True)
    for n, share in enumerate(shares, 1):
        if load < n * slots * 0.999:
            longer = exp(-(n * slots - load) * seconds / held)
            expected = written_out(load, n * slots) * longer
            assert share == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.1, 30), st.integers(1, 20))
def test_a_higher_mean_never_asks_for_fewer_replicas(
    some: float, more: float, seconds: float, demand: int
) -> None:
    spec = policy(maxReplicas=9, maxWaitSeconds=1)

    fewer = spec.asked(sample(0, demand, some, seconds))

    assert spec.asked(sample(0, demand, some + more, seconds)) >= fewer
