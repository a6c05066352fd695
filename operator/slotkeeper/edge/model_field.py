"""The model that a request's body names: `model` at the top level of its JSON, or in its form.

Two fields of that name are rejected: two programs might read different ones.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Container
from itertools import product
from typing import Any, NamedTuple

from slotkeeper.edge.request_body import (
    MAX_DEPTH,
    SMALL,
    check_depth,
    nested_too_deeply,
    too_many_values,
)
from slotkeeper.edge.top_level import (
    NestedTooDeeply,
    RepeatedKey,
    TooManyValues,
    end_of_string,
    locate_values,
)
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

_FIELD = "model"
_SPELLINGS = frozenset(map("".join, product(*((each, each.upper()) for each in _FIELD))))
"""Go's JSON package, with which Ollama and others are written, reads a field in any case."""
_STEP_BYTES = 256 * 1024
_MAX_PART_HEAD = 4 * 1024
_MAX_FORM_VALUE = 1024
_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"

_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAMED_MODEL = re.compile(
    rb"^content-disposition:[^\r\n]*;\s*name=(?:\"model\"|model(?=[\s;]|$))",
    re.IGNORECASE | re.MULTILINE,
)
# Of a form whose fields any two parsers read alike: no folded lines, no encoded or escaped names.
_HEADER_LINE = re.compile(rb"[!-9;-~]+:[^\r\n\0]*")
_QUOTED = rb'"(?:[^"\\]|\\(?!"))*"'
_DISPOSITION = re.compile(
    rb"content-disposition:[ \t]*form-data;[ \t]*name=(?:\"[^\"\\]*\"|[\w.-]+)"
    rb"(?:;[ \t]*filename\*?=(?:%s|[^\s;\"]+))*[ \t]*" % _QUOTED,
    re.IGNORECASE,
)


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object."""


# The values of numbers do not matter, and Python limits the digits of an integer.
_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=len, parse_float=len)


def is_form(request: Request) -> bool:
    """Whether the body is a form with files, as for transcriptions."""
    return b"multipart/form-data" in (request.header(b"content-type") or b"").lower()


def model_in_small_json(body: bytes) -> str | None:
    """Return the model of a body of up to `request_body.SMALL` bytes; None if it names none.

    Raises HttpError with status 400 if it is not a JSON object, nested too deeply, has several
    `model` fields, or one that is not text.
    """
    check_depth(body)
    try:
        tree = _DECODER.decode(body.removeprefix(_BOM).decode())
    except ValueError:
        raise _invalid_json() from None
    if not isinstance(tree, _Object):
        raise _invalid_json()
    values = [value for name, value in tree if name == _FIELD]
    if len(values) > 1:
        raise _ambiguous()
    return _checked(values[0]) if values else None


async def model_in_json(body: bytes) -> str | None:
    """Do the same for a body of any size, in steps which yield to the loop.

    Not all invalid JSON is noticed. Raises HttpError with status 413 if the body has too many
    values to scan it.
    """
    if len(body) <= SMALL:
        return model_in_small_json(body)
    return (await _scan(body, (_FIELD,)))[0]


async def model_in_form(content_type: bytes, body: bytes) -> str | None:
    """Return the value of the form's field `model`; None if there is none.

    Raises HttpError with status 400 if there are several.
    """
    place = await _value_in_form(content_type, body)
    if place is None:
        return None
    value = body[place.start : min(place.end, place.start + _MAX_FORM_VALUE)]
    return value.decode(errors="replace").strip() or None


class Replacement(NamedTuple):
    """A change of a body: bytes from `start` up to `end` are replaced by `data`."""

    start: int
    end: int
    data: bytes


async def replacement(request: Request, model: str) -> Replacement:
    """Return the change by which a request's body, of any size, names `model`.

    Raises HttpError if it names several, or is neither JSON nor a form, or if another program might
    read another model: the one that is replaced is the one that the client may use.
    """
    body = request.body
    if sum(name.lower() == b"content-type" for name, _ in request.headers) > 1:
        raise HttpError(400, "bad_request", "several Content-Type headers: send one")
    if not is_form(request):
        return await _replacement_in_json(body, json.dumps(model).encode())
    content_type = request.header(b"content-type") or b""
    delimiter = _delimiter(content_type)
    if delimiter is None or content_type.lower().count(b"boundary") > 1:
        raise _invalid_form()
    await _check_form(body, delimiter)
    place = await _value_in_form(content_type, body)
    if place is not None:
        return Replacement(place.start, place.end, model.encode())
    head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    return Replacement(0, 0, b"%s%s%s\r\n" % (delimiter, head, model.encode()))


async def _replacement_in_json(body: bytes, model: bytes) -> Replacement:
    places = (await _scan(body, _SPELLINGS))[1]
    start = places.pop(_FIELD, None)
    if places:
        raise _ambiguous()
    if start is None:
        # The scan has found nothing else before it.
        start = body.find(b"{") + 1
        empty = body[start : start + _STEP_BYTES].lstrip(_BLANKS).startswith(b"}")
        return Replacement(
            start, start, b'"%s":%s%s' % (_FIELD.encode(), model, b"," * (not empty))
        )
    if body[start : start + 1] == b'"':
        return Replacement(start, await end_of_string(body, start + 1) + 1, model)
    if body[start : start + 4] == b"null":
        return Replacement(start, start + 4, model)
    raise _invalid_json()


async def _scan(body: bytes, names: Container[str]) -> tuple[str | None, dict[str, int]]:
    """Return the model that a body of JSON names, and the position of the value of each name."""
    beginning = body[:_STEP_BYTES].removeprefix(_BOM).lstrip(_BLANKS)
    if not beginning.startswith(b"{") and (beginning or len(body) <= _STEP_BYTES):
        raise _invalid_json()
    places: dict[str, int] = {}
    try:
        values = await locate_values(body, names, places, max_depth=MAX_DEPTH, unique=True)
    except NestedTooDeeply:
        raise nested_too_deeply() from None
    except RepeatedKey:
        raise _ambiguous() from None
    except TooManyValues:
        raise too_many_values() from None
    return _checked(values.get(_FIELD)), places


async def _check_form(body: bytes, delimiter: bytes) -> None:
    """Raise HttpError for a form in which two parsers may find different fields."""
    # The last delimiter, which is within the last kilobytes.
    end = body.rfind(b"\r\n" + delimiter, max(0, len(body) - _MAX_PART_HEAD)) + 2
    first = body[len(delimiter) : _MAX_PART_HEAD].lstrip(b" \t")
    if (
        not body.startswith(delimiter)
        or not first.startswith(b"\r\n")
        or not body.startswith(delimiter + b"--", end)
    ):
        raise _invalid_form()
    async for start, end in _parts(body, delimiter):
        line = body[body.rfind(delimiter, 0, start) + len(delimiter) : start]
        head_end = body.find(b"\r\n\r\n", start, min(end, start + _MAX_PART_HEAD))
        lines = body[start:head_end].split(b"\r\n") if head_end >= 0 else []
        named = [each for each in lines if each.lower().startswith(b"content-disposition")]
        if (
            line.strip(b" \t") != b"\r\n"
            or not all(map(_HEADER_LINE.fullmatch, lines))
            or len(named) != 1
            or not _DISPOSITION.fullmatch(named[0])
        ):
            raise _invalid_form()


class _Place(NamedTuple):
    start: int
    end: int


async def _value_in_form(content_type: bytes, body: bytes) -> _Place | None:
    """Return where the value of the form's field `model` is."""
    delimiter = _delimiter(content_type)
    if delimiter is None:
        return None
    found: list[_Place] = []
    async for start, end in _parts(body, delimiter):
        head_end = body.find(b"\r\n\r\n", start, min(end, start + _MAX_PART_HEAD))
        if head_end >= 0 and _NAMED_MODEL.search(body[start:head_end]):
            found.append(_Place(head_end + 4, end))
    if len(found) > 1:
        raise _ambiguous()
    return found[0] if found else None


def _delimiter(content_type: bytes) -> bytes | None:
    match = _BOUNDARY.search(content_type)
    return match and b"--" + (match[1] or match[2])


async def _parts(body: bytes, delimiter: bytes) -> AsyncIterator[tuple[int, int]]:
    """Yield start and end of each part of a form, with its head."""
    start = 0 if body.startswith(delimiter) else await _find(body, b"\r\n" + delimiter, 0)
    while 0 <= start < len(body):
        start = body.find(b"\r\n", start + len(delimiter)) + 2
        if start < 2:
            return
        end = await _find(body, b"\r\n" + delimiter, max(0, start - 2))
        if end < 0:
            return
        yield start, end
        start = end + 2


async def _find(body: bytes, needle: bytes, start: int) -> int:
    """Return where `needle` is in the body from `start` on, -1 if nowhere."""
    while start < len(body):
        at = body.find(needle, start, start + _STEP_BYTES + len(needle))
        if at >= 0:
            return at
        start += _STEP_BYTES
        await asyncio.sleep(0)
    return -1


def _checked(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise HttpError(400, "invalid_model", "model must be a string: the name of a model")
    return value


def _ambiguous() -> HttpError:
    return HttpError(400, "ambiguous_model", "the body has several model fields: send one")


def _invalid_form() -> HttpError:
    return HttpError(
        400,
        "invalid_form",
        "the body is not a plain form: send multipart/form-data, in which each part has one header "
        'Content-Disposition: form-data; name="..."',
    )


def _invalid_json() -> HttpError:
    return HttpError(
        400,
        "invalid_json",
        "the body is not a JSON object, so that it names no model: send JSON, or name the model in "
        "the path, /models/NAME/v1/..., or in the header X-Model",
    )
