from slotkeeper.scheduling.time_weighted_sum import TimeWeightedSum


def test_a_value_counts_for_as_long_as_it_holds() -> None:
    value_sum = TimeWeightedSum()
    value_sum.set(3, now=10.0)
    value_sum.set(1, now=12.0)

    assert value_sum.total(16.0) == 3 * 2 + 1 * 4
    assert value_sum.value == 1


def test_reading_twice_adds_nothing() -> None:
    value_sum = TimeWeightedSum()
    value_sum.set(2, now=5.0)

    assert (value_sum.total(6.0), value_sum.total(6.0)) == (2.0, 2.0)
