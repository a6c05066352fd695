"""JSON that others wrote, parsed within bounds: size, nesting, range of numbers, valid Unicode.

Every value that arrives over the network is read by `parse`, or, of an API server, by
`kube.decode`, which skips what breaks a bound.
"""

import json
import math
import re
from typing import Any

MAX_DEPTH = 32
"""Default limit of nested objects and arrays. No format that is read here has half of it."""

MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
_MAX_DIGITS = 20

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class BoundsError(ValueError):
    """Valid JSON that breaks a bound. The message states which one."""


def parse(body: bytes | str, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Return the JSON tree.

    Raises BoundsError if it is longer than `max_bytes` (characters, if it is text), nested deeper
    than `max_depth`, or contains NaN, Infinity, a number beyond 64 bits or a lone surrogate, and
    another ValueError if it is not JSON in UTF-8.
    """
    if len(body) > max_bytes:
        raise BoundsError(f"{len(body)} bytes, at most {max_bytes}")
    text = body if isinstance(body, str) else body.decode()
    start = len(text) - len(text.lstrip(" \t\r\n"))
    tree, end = value_at(text, start)
    if text[end:].strip(" \t\r\n"):
        raise json.JSONDecodeError("Extra data", text, end)
    check_depth(tree, max_depth)
    check_unicode(text, tree)
    return tree


def value_at(text: str, position: int) -> tuple[Any, int]:
    """Return the JSON value that begins at a position, and where it ends.

    Its depth and its strings are not checked. Raises ValueError.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        raise BoundsError("nested too deeply") from None


def check_depth(tree: Any, max_depth: int) -> None:
    """Raise BoundsError if objects and arrays are nested deeper than `max_depth`."""
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
    if level:
        raise BoundsError(f"nested deeper than {max_depth} levels")


def check_unicode(text: str, tree: Any) -> None:
    """Raise BoundsError if the tree of this text contains strings that cannot be encoded.

    JSON may escape lone surrogates, which are not valid in UTF-8, nor in a Kubernetes object.
    """
    if not _ESCAPED_SURROGATE.search(text):
        return
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BoundsError("contains a lone surrogate") from None


def _integer(digits: str) -> int:
    # Python's integers have no limit, and their conversion takes quadratic time.
    number = int(digits) if len(digits) <= _MAX_DIGITS else MAX_INTEGER + 1
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise BoundsError("contains an integer beyond 64 bits")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BoundsError("contains a number beyond 64 bits")
    return number


def _constant(name: str) -> Any:
    raise BoundsError(f"contains {name}, which is not JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
