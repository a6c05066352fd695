from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum


def test_a_number_counts_for_as_long_as_it_holds() -> None:
    number = TimeWeightedSum()
    number.set(3, now=10.0)
    number.set(1, now=12.0)

    assert number.total(16.0) == 3 * 2 + 1 * 4
    assert number.value == 1


def test_looking_twice_adds_nothing() -> None:
    number = TimeWeightedSum()
    number.set(2, now=5.0)

    assert (number.total(6.0), number.total(6.0)) == (2.0, 2.0)
