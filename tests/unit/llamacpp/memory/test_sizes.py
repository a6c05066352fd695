"""Sizes that are compared look equal only if they are."""

import pytest

from slotkeeper.llamacpp.memory.sizes import text, texts

GIB = 1024**3
MIB = 1024**2


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((18 * GIB, 15 * GIB), ["18.0 GiB", "15.0 GiB"]),
        ((2 * GIB, 2 * GIB), ["2.0 GiB", "2.0 GiB"]),
        ((2 * GIB + MIB, 2 * GIB), ["2049 MiB", "2048 MiB"]),
        ((15 * GIB + 1, 15 * GIB), ["15361 MiB", "15360 MiB"]),
        ((1536 * MIB, 640 * MIB), ["1536 MiB", "640 MiB"]),
        ((640 * MIB, 16 * GIB), ["640 MiB", "16.0 GiB"]),
    ],
)
def test_a_unit_is_chosen_for_all_of_them(sizes: tuple[int, int], expected: list[str]) -> None:
    assert texts(*sizes) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "0 MiB"), (1, "1 MiB"), (GIB - 1, "1024 MiB"), (GIB, "1.0 GiB")]
)
def test_a_small_size_is_not_zero(size: int, expected: str) -> None:
    assert text(size) == expected
