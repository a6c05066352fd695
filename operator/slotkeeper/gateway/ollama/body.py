"""The JSON of a request, of which long strings, such as images, are not decoded.

Python's JSON parser and encoder block the event loop, about 10 ms for an image of 5 MB. So strings
of more than 4 KiB are taken out of a large body, in steps which yield to the loop, and put back as
they are into the translated one: the escapes of a JSON string are the same in both.
"""

import asyncio
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from slotkeeper.edge.request_body import SMALL, check_depth
from slotkeeper.edge.top_level import end_of_string
from slotkeeper.wire.errors import HttpError

_LONG = 4 * 1024
_MAX_REST = 256 * 1024
"""Bytes of a body without its long strings: parsing it takes a few milliseconds."""
_STRINGS_PER_STEP = 250
_BOM = b"\xef\xbb\xbf"
_LONG_INTEGER = 20  # digits; llama-server reads a longer number as a float


@dataclass(frozen=True)
class Body:
    """A JSON object. `tree` has a mark in place of each long string."""

    tree: dict[str, Any]
    mark: str = ""
    """Beginning of each mark: random, so that no client can send one. The number of the string and
    a semicolon follow."""
    strings: list[bytes] = field(default_factory=list)
    """The long strings as received, without their quotes."""

    def beginning(self, text: str, size: int) -> str:
        """Return the first characters of a string of the tree."""
        string = self._string(text)
        return text[:size] if string is None else string[:size].decode(errors="replace")

    def restored(self, tree: Any) -> Any:
        """Return a part of the tree with its long strings."""
        if isinstance(tree, str):
            string = self._string(tree)
            return tree if string is None else _decode(b'"' + string + b'"')
        if isinstance(tree, list):
            return [self.restored(each) for each in tree]
        if isinstance(tree, dict):
            return {self.restored(name): self.restored(each) for name, each in tree.items()}
        return tree

    def encode(self, tree: Any) -> list[bytes]:
        """Return another tree as JSON, in parts, with the long strings in place of their marks."""
        encoded = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
        # A lone surrogate is not valid: llama-server rejects it.
        data = encoded.encode(errors="surrogatepass")
        if not self.strings:
            return [data]
        parts = re.split(re.escape(self.mark).encode() + rb"(\d+);", data)
        return [self.strings[int(part)] if at % 2 else part for at, part in enumerate(parts)]

    def _string(self, text: str) -> bytes | None:
        if not (self.strings and text.startswith(self.mark)):
            return None
        return self.strings[int(text.removeprefix(self.mark).removesuffix(";"))]


def read_small(data: bytes) -> Body:
    """Return a body of up to `request_body.SMALL` bytes. Raises HttpError with status 400."""
    check_depth(data)
    tree = _decode(data.removeprefix(_BOM))
    if not isinstance(tree, dict):
        raise _invalid_json()
    return Body(tree)


async def read(data: bytes) -> Body:
    """Return a body of any size, read in steps which yield to the loop.

    Raises HttpError with status 400, or 413 if there is too much beside the long strings.
    """
    if len(data) <= SMALL:
        return read_small(data)
    mark = f"{secrets.token_hex(16)}:"
    kept: list[bytes] = []
    strings: list[bytes] = []
    size = count = at = begin = 0
    while True:
        opening = data.find(b'"', at, at + _MAX_REST)
        if opening < 0:
            break
        closing = await end_of_string(data, opening + 1)
        at = closing + 1
        count += 1
        if count % _STRINGS_PER_STEP == 0:
            await asyncio.sleep(0)
        if closing - opening > _LONG:
            kept += (data[begin : opening + 1], f"{mark}{len(strings)};".encode())
            size += opening - begin
            strings.append(data[opening + 1 : closing])
            begin = closing
        if size + at - begin > _MAX_REST:
            raise _too_large()
    kept.append(data[begin:])
    if size + len(data) - begin > _MAX_REST:
        raise _too_large()
    rest = read_small(b"".join(kept))
    return Body(rest.tree, mark, strings)


def _decode(data: bytes) -> Any:
    try:
        return _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise _invalid_json() from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(members)
    if len(tree) < len(members) and sum(name == "model" for name, _ in members) > 1:
        raise HttpError(400, "ambiguous_model", "the body has several model fields: send one")
    return tree


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONG_INTEGER else float(digits)


def _constant(_: str) -> Any:
    raise ValueError


# NaN and Infinity are not JSON.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


def _invalid_json() -> HttpError:
    return HttpError(400, "invalid_json", "the body is not a JSON object")


def _too_large() -> HttpError:
    return HttpError(
        413,
        "too_many_values",
        f"the body has more than {_MAX_REST} bytes besides strings of more than {_LONG} bytes: "
        "send less at a time, or use OpenAI's API",
    )
