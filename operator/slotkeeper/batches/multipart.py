"""Parse a form (multipart/form-data) in pieces, as it arrives. Strict, in bounded memory. Pure."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_PART_HEAD = 4096
"""Bytes of the headers of one part."""
MAX_PARTS = 16

_BOUNDARY = re.compile(
    rb'multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))\s*(?:;|$)',
    re.IGNORECASE,
)
_PARAMETER = re.compile(rb';\s*([a-z*]+)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class BadForm(ValueError):  # noqa: N818 (the form is bad; nothing failed here)
    """The body is not a form as expected. The message states why."""


class Part(NamedTuple):
    """The beginning of a part."""

    name: str
    filename: str | None
    """As the client sent it; None: the part is not a file."""


class PartEnd(NamedTuple):
    """The end of a part."""


Event = Part | bytes | PartEnd
"""The beginning of a part, a piece of its content, or its end."""


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary of a form. Raises BadForm if it is none."""
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise BadForm("expected a form: multipart/form-data with a boundary")
    boundary: bytes = match[1] or match[2]
    return boundary


class FormParser:
    """Splits a form into its parts, independent of how it is cut into pieces."""

    def __init__(self, boundary: bytes) -> None:
        self.complete = False
        """The last delimiter has been read."""
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may stand at the very beginning, without the line end.
        self._buffer = bytearray(b"\r\n")
        self._in_part = False
        self._parts = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what `data` completes. Raises BadForm."""
        if self.complete:
            return  # an epilogue has no meaning
        self._buffer += data
        while True:
            if self._in_part:
                at = self._buffer.find(self._delimiter)
                if at < 0:
                    # The end may be the beginning of a delimiter.
                    ready = len(self._buffer) - len(self._delimiter) + 1
                    if ready > 0:
                        yield bytes(self._buffer[:ready])
                        del self._buffer[:ready]
                    return
                if at:
                    yield bytes(self._buffer[:at])
                    del self._buffer[:at]
                self._in_part = False
                yield PartEnd()
            part = self._next_part()
            if part is None:
                return
            yield part

    def _next_part(self) -> Part | None:
        """Read a delimiter and the head after it; None if one of them is incomplete."""
        start = len(self._delimiter)
        head = bytes(self._buffer[: start + MAX_PART_HEAD])
        if not head.startswith(self._delimiter[: len(head)]):
            raise BadForm("the body does not begin with the form's boundary")
        if len(head) < start + 2:
            return None
        after = head[start : start + 2]
        if after == b"--":
            self.complete = True
            self._buffer.clear()
            return None
        if after != b"\r\n":
            raise BadForm("a line of the form begins with its boundary, but is not a delimiter")
        end = head.find(b"\r\n\r\n", start)
        if end < 0:
            if len(head) >= start + MAX_PART_HEAD:
                raise BadForm(f"the headers of a part exceed {MAX_PART_HEAD} bytes")
            return None
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadForm(f"the form has more than {MAX_PARTS} parts")
        del self._buffer[: end + 4]
        self._in_part = True
        return _part(head[start + 2 : end])


def _part(head: bytes) -> Part:
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        headers.setdefault(name.strip().lower(), value.strip())
    coding = headers.get(b"content-transfer-encoding", b"binary")
    if coding.lower() not in {b"binary", b"8bit", b"7bit"}:
        raise BadForm("Content-Transfer-Encoding is not supported")
    disposition = headers.get(b"content-disposition", b"")
    found = {key.lower(): text for key, text in _PARAMETER.findall(disposition)}
    if disposition.partition(b";")[0].strip().lower() != b"form-data" or b"name" not in found:
        raise BadForm("a part of the form has no name")
    return Part(_text(found[b"name"]), _text(found[b"filename"]) if b"filename" in found else None)


def _text(value: bytes) -> str:
    return re.sub(r"\\(.)", r"\1", value.decode(errors="replace"))
