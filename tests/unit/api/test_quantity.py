from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.quantity import of_bytes, parse, unequal


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


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999_999, "999999 bytes"),
        (4096, "4Ki"),
        (10 * 2**20, "10Mi"),
        (100 * 2**30, "100Gi"),
        (1536 * 2**20, "1536Mi"),
        (10**7, "10M"),
        (38_567_169, "38.6 MB"),
        (4_683_073_184, "4.7 GB"),
    ],
)
def test_bytes_are_shown_as_a_user_may_have_written_them(number: int, text: str) -> None:
    assert of_bytes(number) == text


def test_different_numbers_are_shown_as_different_texts() -> None:
    assert unequal(38_567_169, 10 * 2**20) == ("38.6 MB", "10Mi")
    assert unequal(38_567_169, 38_567_170) == ("38567169 bytes", "38567170 bytes")
