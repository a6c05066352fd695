"""Resources as text."""

import pytest

from slotkeeper.scaling.budget.resources import Resources, describe, limits


@pytest.mark.parametrize(
    ("mebibytes", "text"),
    [(500, "500 MiB"), (512, "512 MiB"), (8192, "8.0 GiB"), (20_992, "20.5 GiB")],
)
def test_different_amounts_of_memory_do_not_look_equal(mebibytes: int, text: str) -> None:
    assert describe(Resources(memory=mebibytes * 2**20), limits(memory=1)) == text
