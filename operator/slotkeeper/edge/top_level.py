"""Values at the top level of a large JSON body, found without parsing the rest."""

import asyncio
import json
import re
from collections.abc import Container
from typing import Any

_STEP_BYTES = 32 * 1024
_FIND_BYTES = 64 * 1024
_BACKSLASHES = 64
_MARKS_PER_STEP = 250
MAX_MARKS = 200_000
"""Strings, objects and arrays that a scan passes: more would take too long."""
_MAX_PARSED = 64 * 1024
"""Bytes of an array or object that is parsed."""
MAX_STRING = 256 * 1024
"""Bytes of a string that is parsed, with its quotes and escapes."""
_DECODER = json.JSONDecoder()

_MARK = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_DIGIT = re.compile(rb"[0-9]")


class TooManyValues(Exception):  # noqa: N818 (the body is too large; nothing failed here)
    """The body has more than MAX_MARKS strings, objects and arrays."""


class NestedTooDeeply(Exception):  # noqa: N818 (as above)
    """The body has more objects and arrays inside one another than the caller accepts."""


class RepeatedKey(Exception):  # noqa: N818 (as above)
    """The outermost object has the same key twice. The message is the key."""


async def top_level_values(
    body: bytes, names: Container[str], *, max_depth: int | None = None, unique: bool = False
) -> dict[str, Any]:
    """Return the values of these keys in the outermost object; of equal keys the last one counts.

    Raises NestedTooDeeply beyond `max_depth` objects and arrays, and with `unique` RepeatedKey.

    An array or object of more than 64 KiB is not parsed: an array is returned as a list of its
    length with None for each element, or as [0] if it contains numbers; an object as {}. Of a
    string of more than MAX_STRING the beginning is returned, unparsed. Raises TooManyValues.

    The scan works in steps, which yield to the loop: Python's parser would block the loop from a
    thread too, since it holds the GIL until it is done.
    """
    return await locate_values(body, names, {}, max_depth=max_depth, unique=unique)


async def locate_values(
    body: bytes,
    names: Container[str],
    places: dict[str, int],
    *,
    max_depth: int | None = None,
    unique: bool = False,
) -> dict[str, Any]:
    """Do the same, and set in `places` the position of each value's first byte."""
    values: dict[str, Any] = {}
    array: list[Any] = []  # that is being counted, where the depth is 2
    depth = at = end = marks = 0
    while at < len(body):
        mark = _MARK.search(body, at, at + _STEP_BYTES)
        marks += 1
        if marks > MAX_MARKS:
            raise TooManyValues
        if mark is None or marks % _MARKS_PER_STEP == 0:
            await asyncio.sleep(0)
        if mark is None:
            at += _STEP_BYTES
            continue
        kind = mark[0]
        at = 1 + await end_of_string(body, mark.end()) if kind == b'"' else mark.end()
        if depth == 2:
            _count_element(array, kind, body[end : mark.start()])
        end = at
        if kind == b'"':
            key = _COLON.match(body, at) if depth == 1 else None
            name = _name(body[mark.start() : at]) if key else ""
            if key and name in names:
                if unique and name in values:
                    raise RepeatedKey(name)
                end = at = key.end()
                values[name], array = _value(body, at)
                places[name] = at
                # As long as a step. Without duplicate keys there are a handful.
                marks += _MARKS_PER_STEP
                await asyncio.sleep(0)
        elif kind in b"{[":
            depth = _deeper(depth, max_depth)
        else:
            depth -= 1
            # Other arrays and objects are counted in vain.
            array = array if depth > 1 else []
    return values


def _deeper(depth: int, maximum: int | None) -> int:
    if depth == maximum:
        raise NestedTooDeeply
    return depth + 1


def _count_element(array: list[Any], kind: bytes, before: bytes) -> None:
    """Count a string, an array or an object in an array; `before`: what precedes it there."""
    if _DIGIT.search(before):
        array[:] = [0]
    elif kind not in b"}]" and array != [0]:
        array.append(None)


def _name(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted)) if len(quoted) < 100 else ""
    except ValueError:
        return ""


def _value(body: bytes, at: int) -> tuple[Any, list[Any]]:
    """Return the value at this position, and the list in which to count its elements."""
    size = MAX_STRING + 1 if body[at : at + 1] == b'"' else _MAX_PARSED
    text = _decode(body[at : at + size])
    counted: list[Any] = []
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        value = counted if text.startswith("[") else {} if text.startswith("{") else text
    return value, counted


def _decode(part: bytes) -> str:
    """Return the text before the first invalid byte, or before a character that is cut off.

    llama-server rejects the body if there is an invalid one. To replace each would take long.
    """
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        return part[: error.start].decode()


async def end_of_string(body: bytes, begin: int) -> int:
    """Return the position of the closing quote of a string, or the end of the body.

    `begin`: after its opening quote. Yields to the loop.
    """
    at = begin
    while at < len(body):
        # Finding a byte is a hundred times as fast as matching a pattern.
        quote = body.find(b'"', at, at + _FIND_BYTES)
        if quote < 0:
            at += _FIND_BYTES
        elif not _is_escaped(body, begin, quote):
            return quote
        else:
            # But many escaped quotes are matched faster than they are found one by one.
            at = _in_string(body, quote + 1)
            if body[at : at + 1] == b'"':
                return at
        await asyncio.sleep(0)
    return len(body)


def _is_escaped(body: bytes, begin: int, at: int) -> bool:
    """Whether an odd number of backslashes precedes this position of a string."""
    end = at
    while end > begin:
        part = body[max(begin, end - _BACKSLASHES) : end]
        kept = len(part.rstrip(b"\\"))
        end -= len(part) - kept
        if kept:
            break
    return (at - end) % 2 == 1


def _in_string(body: bytes, at: int) -> int:
    """Return where a string continues after one more step, at most at its closing quote."""
    rest = _REST_OF_STRING.match(body, at, at + _STEP_BYTES)
    end = rest.end() if rest else at
    # No progress: the string is empty, or the body ends in a backslash.
    return end if end > at or body[at : at + 1] == b'"' else len(body)
