"""The members of the outermost object of a JSON text, and where the value of each is in it."""

import asyncio
import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slotkeeper.edge.nesting import Step, nesting
from slotkeeper.edge.top_level import end_of_string

MAX_LOCATED = 1000
"""Members of a large body: more would take too long, and no client sends as many."""
_MEMBERS_PER_STEP = 50
_PIECE_BYTES = 4 * 1024
_DECODER = json.JSONDecoder()

_BLANKS = r"[ \t\r\n]*"
_NAME = rf'{_BLANKS}"([^"\\]*)"{_BLANKS}:{_BLANKS}'
_ESCAPED_NAME = rf'{_BLANKS}"((?:[^"\\]|\\.)*+)"{_BLANKS}:{_BLANKS}'
_BEGIN = rf"\ufeff?{_BLANKS}\{{"
_FIRST, _FIRST_ESCAPED = (re.compile(_BEGIN + name) for name in (_NAME, _ESCAPED_NAME))
_NEXT, _NEXT_ESCAPED = (re.compile(f"{_BLANKS},{name}") for name in (_NAME, _ESCAPED_NAME))
_END = re.compile(rf"{_BLANKS}\}}{_BLANKS}")

# Bounded, since a match blocks the loop.
_FEW_BLANKS = rb"[ \t\r\n]{0,4096}"
_SHORT_NAME = rb'%b"((?:[^"\\]|\\.){0,4096}+)"%b:%b' % ((_FEW_BLANKS,) * 3)
_FIRST_OF_LARGE = re.compile(rb"(?:\xef\xbb\xbf)?%b\{%b" % (_FEW_BLANKS, _SHORT_NAME), re.DOTALL)
_NEXT_OF_LARGE = re.compile(rb"%b,%b" % (_FEW_BLANKS, _SHORT_NAME), re.DOTALL)
_LITERAL = re.compile(rb"[-+.0-9A-Za-z]{1,4096}")
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


class Members(NamedTuple):
    """Where the members of an object are in its text; of equal names the last one counts."""

    text: str | bytes
    spans: Mapping[str, tuple[int, int]]

    def value(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a value as they were sent; b"" if it is null or absent.

        For llama-server null is the same as absent.
        """
        span = self.spans.get(name)
        if span is None:
            return b""
        begin, end = span
        part = self.text[begin : min(end, begin + size)]
        data = part[:size] if isinstance(part, bytes) else part.encode()[:size]
        return b"" if data == b"null" else data


NO_MEMBERS = Members("", {})


def parse(body: bytes) -> tuple[dict[str, Any], Members]:
    """Parse a small body, and locate its members. Raises ValueError if it is not a JSON object.

    Parsing member by member costs half a microsecond for each.
    """
    text = body.decode()
    tree: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = 0
    member = _FIRST.match(text) or _FIRST_ESCAPED.match(text)
    while member:
        name = member[1]
        if "\\" in name:
            name = str(json.loads(f'"{name}"'))
        begin = member.end()
        tree[name], at = _DECODER.raw_decode(text, begin)
        spans[name] = (begin, at)
        member = _NEXT.match(text, at)
        if member is None:
            if _END.fullmatch(text, at):
                return tree, Members(text, spans)
            member = _NEXT_ESCAPED.match(text, at)
    raise ValueError("not a JSON object")


async def locate(body: bytes, steps: Sequence[Step]) -> Members:
    """Locate the members of a body of any size, in steps which yield to the loop.

    `steps` are those of `nesting`, which spare the reading of what is nested. Returns NO_MEMBERS
    for a body of more than MAX_LOCATED members, and for one that is found not to be a JSON object;
    not all invalid JSON is.
    """
    spans: dict[str, tuple[int, int]] = {}
    count = at = 0
    member = _FIRST_OF_LARGE.match(body)
    while member:
        count += 1
        if count % _MEMBERS_PER_STEP == 0:
            await asyncio.sleep(0)
        begin = member.end()
        at = await _end_of_value(body, begin, steps)
        name = _name(member[1])
        if name is None or count > MAX_LOCATED:
            return NO_MEMBERS
        spans[name] = (begin, at)
        member = _NEXT_OF_LARGE.match(body, at)
    # Anything but a bracket here is invalid, or more than a client would send.
    return Members(body, spans) if b"}" in body[at : at + _PIECE_BYTES] else NO_MEMBERS


def _name(quoted: bytes) -> str | None:
    try:
        return str(json.loads(b'"%b"' % quoted))
    except ValueError:
        return None


async def _end_of_value(body: bytes, begin: int, steps: Sequence[Step]) -> int:
    kind = body[begin : begin + 1]
    if kind == b'"':
        return min(1 + await end_of_string(body, begin + 1), len(body))
    if kind in {b"[", b"{"}:
        return await _end_of_container(body, begin + 1, steps)
    literal = _LITERAL.match(body, begin)
    return literal.end() if literal else begin


async def _end_of_container(body: bytes, begin: int, steps: Sequence[Step]) -> int:
    """Return where a member's array or object ends, which begins before `begin`."""
    following = bisect_right(steps, begin, key=lambda step: step.begin)
    # The part of the step in which it begins, and then the first step in which it may end.
    first = steps[following - 1]._replace(begin=begin, in_string=False, depth=2)
    last = next((step for step in steps[following:] if step.lowest < 2), None)
    for step in (first, last) if last else (first,):
        await asyncio.sleep(0)
        for piece in nesting(
            body,
            step.begin,
            step.end,
            step_bytes=_PIECE_BYTES,
            in_string=step.in_string,
            depth=step.depth,
        ):
            if piece.lowest < 2:
                return _end_in(body, piece)
    return len(body)


def _end_in(body: bytes, piece: Step) -> int:
    """Return where the depth falls below 2 in a part of a body."""
    at, depth = piece.begin, piece.depth
    if piece.in_string and (rest := _REST_OF_STRING.match(body, at, piece.end)):
        at = rest.end()
    for mark in _MARK.finditer(body, at, piece.end):
        if mark[0] in b"{[":
            depth += 1
        elif mark[0] in b"]}":
            depth -= 1
            if depth < 2:
                return mark.end()
    return piece.end
