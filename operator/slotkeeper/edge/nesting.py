"""How deeply the objects and arrays of a JSON text are nested, without parsing it."""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

STEP_BYTES = 64 * 1024
"""Of one step: a fifth of a millisecond."""

_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"')


class Step(NamedTuple):
    """A part of a JSON text, and the number of objects and arrays that are open in it."""

    begin: int
    end: int
    in_string: bool
    """Whether it begins within a string."""
    depth: int
    """At its beginning."""
    lowest: int
    highest: int


def nesting(
    body: bytes,
    begin: int = 0,
    end: int | None = None,
    *,
    step_bytes: int = STEP_BYTES,
    in_string: bool = False,
    depth: int = 0,
) -> Iterator[Step]:
    """Yield the steps of a body, or of a part of it: no escape is divided between two steps.

    `in_string` and `depth` describe the position `begin`.
    """
    at, end = begin, len(body) if end is None else end
    while at < end:
        step = body[at : min(at + step_bytes, end)]
        backslashes = len(step) - len(step.rstrip(b"\\"))
        if backslashes % 2 and len(step) > 1:
            step = step[:-1]
        begin, at, began_in_string = at, at + len(step), in_string
        if b"\\" in step:
            step = step.replace(b"\\\\", b"").replace(b'\\"', b"")
        step = step.translate(None, _NOT_STRUCTURE)
        # Two quotes side by side are an empty string, or two strings with no bracket between them.
        step = _STRING.sub(b"", (b'"' + step if in_string else step).replace(b'""', b""))
        step, quote, _ = step.partition(b'"')
        in_string = bool(quote)
        levels = list(accumulate(memoryview(step.translate(_BRACKETS)).cast("b"), initial=depth))
        yield Step(begin, at, began_in_string, depth, min(levels), max(levels))
        depth = levels[-1]
