"""Parses Kubernetes quantities, such as `500m`, `2` and `4Gi`, into exact numbers."""

import re
from argparse import ArgumentTypeError
from fractions import Fraction

PATTERN = r"[0-9]+(\.[0-9]*)?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
"""Of non-negative quantities: amounts of resources are never negative."""

_SUFFIXES = {
    "": Fraction(1),
    **{suffix: Fraction(1, 1000**n) for n, suffix in enumerate("mun", start=1)},
    **{suffix: Fraction(1000**n) for n, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**n) for n, suffix in enumerate("KMGTPE", start=1)},
}


def parse(quantity: int | str) -> Fraction:
    """Return the exact value of a quantity.

    Raises ValueError if it is malformed or negative.
    """
    text = str(quantity)
    if not re.fullmatch(PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi")
    number = text.rstrip("KMGTPEikmun")
    if suffix := text[len(number) :]:
        return Fraction(number.rstrip(".")) * _SUFFIXES[suffix]
    mantissa, _, exponent = text.lower().partition("e")
    return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)


def bytes_argument(text: str) -> int:
    """Parse an argument of a command line, a number of bytes. Raises ArgumentTypeError."""
    try:
        size = int(parse(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a quantity such as 512Mi or 16Gi") from None
    if size < 1:
        raise ArgumentTypeError("must be 1 or more")
    return size


def of_bytes(number: int) -> str:
    """Return a number of bytes as text: `10Mi` or `10M`, as a user may have written it, if that is
    exact; else `38.6 MB`, or all digits of less than a megabyte."""
    for power, prefix in (*enumerate("KMGTPE", start=1),)[::-1]:
        if number and number % 1024**power == 0:
            return f"{number // 1024**power}{prefix}i"
    for power, prefix in (*enumerate("MGTPE", start=2),)[::-1]:
        if number >= 1000**power:
            whole = number % 1000**power == 0
            digits = f"{number // 1000**power}" if whole else f"{number / 1000**power:.1f} "
            return f"{digits}{prefix}{'' if whole else 'B'}"
    return f"{number} bytes"


def unequal(one: int, other: int) -> tuple[str, str]:
    """Return two different numbers of bytes as texts that differ."""
    texts = of_bytes(one), of_bytes(other)
    return texts if texts[0] != texts[1] else (f"{one} bytes", f"{other} bytes")
