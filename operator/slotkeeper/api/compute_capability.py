"""CUDA compute capabilities in all common spellings."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

PATTERN = r"[1-9][0-9]?\.[0-9]|(sm_|compute_)?[1-9][0-9]{1,2}"

AUTO = "auto"
"""Instead of a compute capability: what the cluster's nodes have."""

_MESSAGE = "must be a compute capability such as 7.5, 75, sm_75 or compute_75"

_CLOSED = (
    *("2.0", "2.1", "3.0", "3.2", "3.5", "3.7", "5.0", "5.2", "5.3"),
    *("6.0", "6.1", "6.2", "7.0", "7.2", "7.5"),
)
_OPEN_FROM = 8
"""Major version from which on NVIDIA may still add minor versions: CUDA 13.0 added 8.8. So those
are never rejected, and all older ones that exist are known."""


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


def _parse(arch: Any) -> str:
    try:
        return AUTO if arch == AUTO else normalize(arch)
    except ValueError as error:
        raise ValueError(f"{error}, or {AUTO}") from None


def _check_exists(arch: str) -> str:
    if arch != AUTO and int(arch.partition(".")[0]) < _OPEN_FROM and arch not in _CLOSED:
        raise ValueError(
            f"no GPU has compute capability {arch}: below {_OPEN_FROM}.0 there are "
            f"{', '.join(_CLOSED)}; the labels nvidia.com/gpu.compute.major and .minor of a node "
            "are those of its GPUs"
        )
    return arch


ComputeArch = Annotated[
    str,
    BeforeValidator(_parse),
    AfterValidator(_check_exists),
    # No type: an unquoted 7.5 is a number, and a CRD has no union of number and string. Patterns
    # do not apply to numbers, and bounds do not apply to strings.
    WithJsonSchema(
        {
            "x-kubernetes-preserve-unknown-fields": True,
            "pattern": f"^({PATTERN}|{AUTO})$",
            "minimum": 2,
            "maximum": 999,
        }
    ),
]
"""Normalized: always of the form `7.5`, or `auto`."""
