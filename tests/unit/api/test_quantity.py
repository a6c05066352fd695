from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.quantity import parse


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (2, 2),
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("0.5", Fraction(1, 2)),
        ("5.", 5),
        ("1500u", Fraction(15, 10_000)),
        ("3n", Fraction(3, 10**9)),
        ("4k", 4000),
        ("4Ki", 4096),
        ("1.5Gi", 3 * 2**29),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("12E-1", Fraction(12, 10)),
        ("7e+2", 700),
    ],
)
def test_a_quantity_is_an_exact_number(quantity: int | str, number: Fraction) -> None:
    assert parse(quantity) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1 Gi", "1gi", "Gi", "1.2.3", "1e", "0x1", "1Gi\n"]
)
def test_a_malformed_quantity_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity such as 500m, 2 or 4Gi"):
        parse(text)


@given(st.integers(0, 2**70))
def test_a_whole_number_is_itself(number: int) -> None:
    assert parse(number) == parse(str(number)) == number
