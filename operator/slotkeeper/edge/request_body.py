"""Inspection of a request's body before it is queued: its tasks, and what would harm llama-server.

llama-server reads JSON schemas, tools and grammars recursively. Measured with b11669: 20,000 levels
end its process, and a schema of 5,000 levels takes ten seconds of CPU.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any, NamedTuple

from slotkeeper.edge import json_members
from slotkeeper.edge.json_members import NO_MEMBERS, Members
from slotkeeper.edge.nesting import Step, nesting
from slotkeeper.edge.top_level import MAX_MARKS, MAX_STRING, TooManyValues, top_level_values
from slotkeeper.llamacpp.tasks import COMPLETION_FIELDS, INPUT_FIELDS, ONE_TASK, Tasks, tasks_of
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

SMALL = 64 * 1024
"""Bytes of a body that is parsed in one step: a third of a millisecond, or three for one that is
made of brackets."""
MAX_DEPTH = 128
"""Objects and arrays inside one another. Those of real tools and schemas are a tenth of that."""
MAX_GRAMMAR_DEPTH = 128
"""Parentheses inside one another in a GBNF grammar."""
MAX_GRAMMAR = MAX_STRING // 2
"""Characters of a GBNF grammar."""

MAX_REPETITIONS = 200_000
"""Sum of the bounds in a GBNF grammar, such as {1,100}: a tenth of a second. The time grows with
the square: 42 KiB of them take minutes, in which llama-server does nothing else."""
MAX_LAST_N = 2**20
"""Tokens that a sampler looks back on. llama-server b11669 allocates memory for as many, and is
killed for 2**31 - 1 of them."""

_TRIGGER_TYPES = range(4)
"""Of `grammar_triggers`. Any other ends llama-server b11669 by an assertion."""
_DECODER = json.JSONDecoder()
_OVERLAP = 32  # longer than every needle
_LONG_INTEGER = 20  # digits; llama-server reads a longer number as a float

_PARENTHESES = bytes.maketrans(b"()", b"\x01\xff")
_NOT_PARENTHESES = bytes(set(range(256)) - set(b"()"))
# Strings, character classes, tokens and comments, also unterminated ones. Possessive, and each
# begins a match: otherwise a grammar of opening brackets would take minutes.
_GRAMMAR_LITERAL = re.compile(
    rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\[(?:[^\]\\]|\\.)*+(?:\]|\\?\Z)|<[^>]*+>?|#[^\n]*+', re.DOTALL
)
# A letter or an underscore of a key, escaped. No encoder escapes one.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_GRAMMAR_FIELDS = ("grammar", "grammar_triggers")
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_LAST_N_FIELDS = ("repeat_last_n", "dry_penalty_last_n")
_DISCARD_FIELD = "n_discard"
"""Tokens that leave the context when it is full. Builds before b8936 write out of bounds for a
negative number (CVE-2026-21869)."""
_INTERNAL_FIELD = "chat_parser"
"""llama-server sets it itself, to a serialized parser. Builds before b11393 use freed memory for
one of a client (CVE-2026-107183)."""
_CHECKED_FIELDS = frozenset((*_GRAMMAR_FIELDS, *_LAST_N_FIELDS, _DISCARD_FIELD, _INTERNAL_FIELD))
_REPETITION = re.compile(rb"\{\s*0*([0-9]{0,9})[0-9]*\s*,?\s*0*([0-9]{0,9})")
_FORM_PATHS = frozenset((b"/audio/transcriptions", b"/v1/audio/transcriptions"))


def check_encoding(request: Request) -> None:
    """Raise HttpError for a body that cannot be inspected, though llama-server may read it."""
    for name, value in request.headers:
        # Most headers differ in length, which is cheaper to compare.
        if len(name) == 12 and name.lower() == b"content-type":
            # llama-server makes a JSON object of a form on every path.
            if b"multipart" in value.lower() and request.path not in _FORM_PATHS:
                raise _unsupported("forms are not supported on this path: send JSON")
        elif (
            len(name) == 16 and name.lower() == b"content-encoding" and value.lower() != b"identity"
        ):
            raise _unsupported("Content-Encoding is not supported: send the body as it is")


def is_object(path: bytes, beginning: bytes) -> bool:
    """Whether a body begins as llama-server expects it on a path."""
    return path in _FORM_PATHS or _OBJECT.match(beginning) is not None


class Inspected(NamedTuple):
    """What is known of a body after its inspection."""

    tasks: Tasks
    members: Members = NO_MEMBERS
    """None unless they were to be located, and none of invalid JSON."""


def inspect(path: bytes, body: bytes, *, locate: bool = False) -> Inspected:
    """Inspect a small body. Raises HttpError for a harmful one.

    `locate`: also its members. Invalid JSON counts as one task: llama-server rejects it before it
    needs a slot.
    """
    if path in _FORM_PATHS:
        return Inspected(ONE_TASK)
    check_depth(body)
    try:
        tree, members = _parse(body, locate=locate)
    except ValueError:
        return Inspected(ONE_TASK)
    if isinstance(tree, dict) and not _CHECKED_FIELDS.isdisjoint(tree):
        _check_fields(tree)
    return Inspected(tasks_of(path.decode(), tree), members)


def check_depth(body: bytes) -> None:
    """Raise HttpError if the objects and arrays of a small body are nested too deeply."""
    # Counting brackets takes a sixth of the time of matching them.
    objects = body.count(b"{")
    if objects > MAX_DEPTH or objects + body.count(b"[") > MAX_DEPTH:
        for step in nesting(body):
            if step.highest > MAX_DEPTH:
                raise nested_too_deeply()


def nested_too_deeply() -> HttpError:
    """400: the objects and arrays of the body are nested too deeply."""
    return HttpError(
        400, "nested_too_deeply", f"the JSON is nested more than {MAX_DEPTH} deep: flatten it"
    )


def too_many_values() -> HttpError:
    """413: scanning the body would take too long."""
    return HttpError(
        413,
        "too_many_values",
        f"the body has more than {MAX_MARKS} strings, objects and arrays: send less at a time",
    )


async def inspect_large(path: bytes, body: bytes, *, locate: bool = False) -> Inspected:
    """Do the same for a body of any size, in steps which yield to the loop."""
    if path in _FORM_PATHS:
        return Inspected(ONE_TASK)
    name = path.decode()
    fields = (*INPUT_FIELDS.get(name, ()), *COMPLETION_FIELDS.get(name, ()), *_CHECKED_FIELDS)
    keys = {field.encode() for field in fields}
    found = False
    steps: list[Step] = []
    for step in nesting(body):
        if step.highest > MAX_DEPTH:
            raise nested_too_deeply()
        found = found or _may_contain(body[step.begin : step.end + _OVERLAP], keys)
        steps.append(step)
        await asyncio.sleep(0)
    members = await json_members.locate(body, steps) if locate else NO_MEMBERS
    if not found:
        return Inspected(ONE_TASK, members)
    try:
        tree = await top_level_values(body, fields)
    except TooManyValues:
        raise too_many_values() from None
    _check_fields(tree)
    return Inspected(tasks_of(name, tree), members)


def _may_contain(part: bytes, keys: AbstractSet[bytes]) -> bool:
    """Whether one of the keys is in a part of a body, as a string or between escaped quotes."""
    if b"\\" in part and _ESCAPED_LETTER.search(part):
        return True
    return not keys.isdisjoint(part.split(b'"'))


def _parse(body: bytes, *, locate: bool) -> tuple[Any, Members]:
    try:
        if locate:
            return json_members.parse(body)
        # Half the time of json.loads for a short body, which detects its encoding.
        return _DECODER.decode(body.decode()), NO_MEMBERS
    except ValueError:
        # Python limits the digits of an integer, llama-server does not. It also accepts a BOM.
        return json.loads(body, parse_int=_parse_int), NO_MEMBERS


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONG_INTEGER else float(digits)


def _check_fields(tree: Mapping[str, Any]) -> None:
    for name in _LAST_N_FIELDS:
        value = tree.get(name)
        # llama-server may keep the lowest 32 bits only.
        if isinstance(value, int | float) and not -(2**31) <= value <= MAX_LAST_N:
            raise HttpError(400, "invalid_sampling", f"{name} must be at most {MAX_LAST_N}")
    discarded = tree.get(_DISCARD_FIELD)
    if isinstance(discarded, int | float) and not 0 <= discarded < 2**31:
        raise HttpError(400, "invalid_sampling", f"{_DISCARD_FIELD} must be 0 or more")
    if tree.get(_INTERNAL_FIELD):
        raise HttpError(
            400, "internal_field", f"{_INTERNAL_FIELD} is internal to llama-server: leave it out"
        )
    _check_grammar(tree)


def _check_grammar(tree: Mapping[str, Any]) -> None:
    triggers = tree.get("grammar_triggers")
    for trigger in triggers if isinstance(triggers, list) else ():
        kind = trigger.get("type") if isinstance(trigger, dict) else None
        # llama-server rejects what is no number.
        if not isinstance(kind, int) or kind not in _TRIGGER_TYPES:
            raise HttpError(
                400, "invalid_grammar", "grammar_triggers must be objects with a type of 0 to 3"
            )
    grammar = tree.get("grammar")
    if not isinstance(grammar, str):
        return
    if len(grammar) > MAX_GRAMMAR:
        raise HttpError(
            400, "invalid_grammar", f"the grammar is longer than {MAX_GRAMMAR} characters"
        )
    if "{" in grammar or grammar.count("(") > MAX_GRAMMAR_DEPTH:
        text = _GRAMMAR_LITERAL.sub(b"", grammar.encode("utf-8", "surrogatepass"))
        bounds = (max(int(n or 0) for n in each) for each in _REPETITION.findall(text))
        if sum(bounds) > MAX_REPETITIONS:
            raise HttpError(
                400,
                "invalid_grammar",
                f"the grammar's repetitions have bounds of more than {MAX_REPETITIONS} in sum",
            )
        text = text.translate(_PARENTHESES, _NOT_PARENTHESES)
        if max(accumulate(memoryview(text).cast("b"), initial=0)) > MAX_GRAMMAR_DEPTH:
            raise HttpError(
                400,
                "invalid_grammar",
                f"the grammar is nested more than {MAX_GRAMMAR_DEPTH} deep: use more rules",
            )


def _unsupported(message: str) -> HttpError:
    return HttpError(415, "unsupported_encoding", message)
