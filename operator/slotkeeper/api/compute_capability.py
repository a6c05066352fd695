"""CUDA compute capabilities in all common spellings."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

PATTERN = r"[1-9][0-9]?\.[0-9]|(sm_|compute_)?[1-9][0-9]{1,2}"

_MESSAGE = "must be a compute capability such as 7.5, 75, sm_75 or compute_75"


def normalize(arch: Any) -> str:
    """Return `7.5` for 7.5, 75, "7.5", "75", "sm_75" and "compute_75".

    An integer below 20 is the major version alone: YAML parses an unquoted 8.0 as 8, and no
    compute capability 1.x is left in use. Raises ValueError for everything else.
    """
    if isinstance(arch, bool) or not isinstance(arch, int | float | str):
        raise ValueError(_MESSAGE)
    text = f"{arch:g}" if isinstance(arch, float) else str(arch)
    if isinstance(arch, int | float) and arch in range(1, 20):
        text = f"{text}.0"
    if not re.fullmatch(PATTERN, text, re.ASCII):
        raise ValueError(_MESSAGE)
    if "." in text:
        return text
    digits = text.rpartition("_")[2]
    return f"{digits[:-1]}.{digits[-1]}"


ComputeArch = Annotated[
    str,
    BeforeValidator(normalize),
    # No type: an unquoted 7.5 is a number, and a CRD has no union of number and string. Patterns
    # do not apply to numbers, and bounds do not apply to strings.
    WithJsonSchema(
        {
            "x-kubernetes-preserve-unknown-fields": True,
            "pattern": f"^({PATTERN})$",
            "minimum": 1,
            "maximum": 999,
        }
    ),
]
"""Normalized: always of the form `7.5`."""
