from slotkeeper.scheduling.time_weighted_sum import Integral


def test_a_number_counts_for_as_long_as_it_holds() -> None:
    number = Integral()
    number.note(3, now=10.0)
    number.note(1, now=12.0)

    assert number.until(16.0) == 3 * 2 + 1 * 4
    assert number.value == 1


def test_looking_twice_adds_nothing() -> None:
    number = Integral()
    number.note(2, now=5.0)

    assert (number.until(6.0), number.until(6.0)) == (2.0, 2.0)
