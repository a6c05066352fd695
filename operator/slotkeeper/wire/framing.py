"""Find the end of a response by counting its bytes, which are passed through unchanged."""

from typing import Protocol

from slotkeeper.wire.message import ResponseHead

_MAX_LINE = 16 * 1024

# Chunk size lines, by the length of the whole chunk. Almost every piece of a stream is exactly one
# chunk, and two comparisons take a sixth of the time that parsing it takes.
_SIZE_LINES = {
    len(line) + size + 2: line for size in range(1, 2048) for line in (b"%x\r\n" % size,)
}
_HEX = frozenset(b"0123456789abcdefABCDEF")


class BadResponse(Exception):  # noqa: N818 (the response is bad; nothing failed here)
    """The response is invalid, or its end is ambiguous."""


class Framing(Protocol):
    """Counts the bytes of a body, to find its end."""

    chunked: bool
    """The body carries chunk framing."""
    until_close: bool
    """The end of the connection marks the end of the body."""

    def feed(self, data: bytes) -> int | None:
        """Return how many bytes of `data` belong to the body if it ends in `data`, else None.

        Raises BadResponse.
        """

    def payload(self) -> bytes:
        """Return the content of the last `feed`, without chunk framing."""


def framing_of(head: ResponseHead, *, to_head: bool = False) -> Framing:
    """Return the framing of the body that follows `head`. Raises BadResponse.

    `to_head`: it is the response to a HEAD request.
    """
    if to_head or head.status in {204, 304} or head.status < 200:
        return ContentLength(0)
    if head.codings:
        if head.codings != [b"chunked"]:
            raise BadResponse("unsupported Transfer-Encoding, expected chunked")
        if not head.http11:
            raise BadResponse("chunked encoding in an HTTP/1.0 response")
        return Chunked()
    return UntilClose() if head.length is None else ContentLength(head.length)


class ContentLength:
    """A body with a Content-Length."""

    chunked = False
    until_close = False

    __slots__ = ("_data", "_left")

    def __init__(self, length: int) -> None:
        self._left = length
        self._data = b""

    def feed(self, data: bytes) -> int | None:
        """See `Framing`."""
        left = self._left
        self._data = data if len(data) <= left else data[:left]
        self._left = left - len(self._data)
        return None if self._left else len(self._data)

    def payload(self) -> bytes:
        """See `Framing`."""
        return self._data


class UntilClose:
    """A body that ends with its connection."""

    chunked = False
    until_close = True

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> int | None:
        """See `Framing`."""
        self._data = data
        return None

    def payload(self) -> bytes:
        """See `Framing`."""
        return self._data


class Chunked:
    """A chunked body, with its trailers."""

    chunked = True
    until_close = False

    __slots__ = ("_between", "_data", "_inside", "_last", "_left", "_line", "_spans")

    def __init__(self) -> None:
        self._between = True  # the next byte begins a size line
        self._left = 0  # bytes of the current chunk's content still to arrive
        self._inside = False  # in a chunk's content, or before the line end after it
        self._last = False  # the chunk of size 0 has arrived; trailers follow
        self._line = b""
        self._data = b""
        # Where the content is in _data; None: _data is one whole chunk.
        self._spans: list[tuple[int, int]] | None = []

    def feed(self, data: bytes) -> int | None:
        """See `Framing`."""
        self._data = data
        if self._between:
            line = _SIZE_LINES.get(len(data))
            if line is not None and data.startswith(line) and data.endswith(b"\r\n"):
                self._spans = None
                return None
        end = self._walk(data)
        self._between = not (self._left or self._inside or self._last or self._line)
        return end

    def payload(self) -> bytes:
        """See `Framing`."""
        if self._spans is None:
            return self._data[self._data.index(b"\n") + 1 : -2]
        return b"".join([self._data[start:end] for start, end in self._spans])

    def _walk(self, data: bytes) -> int | None:
        self._spans = spans = []
        at = 0
        size = len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                spans.append((at, at + step))
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                if len(self._line) > _MAX_LINE:
                    raise BadResponse(f"line of a chunked body exceeds {_MAX_LINE} bytes")
                return None
            line = self._line + data[at:end]
            self._line = b""
            at = end + 1
            if self._line_ends_body(line):
                return at
        return None

    def _line_ends_body(self, line: bytes) -> bool:
        if not line.endswith(b"\r"):
            raise BadResponse("chunk line does not end in CRLF")
        if self._last:
            return line == b"\r"
        if self._inside:
            if line != b"\r":
                raise BadResponse("chunk is longer than its size line specifies")
            self._inside = False
            return False
        digits = line[:-1].partition(b";")[0]
        if not 0 < len(digits) <= 15 or not _HEX.issuperset(digits):
            raise BadResponse("invalid chunk size")
        self._left = int(digits, 16)
        self._last = self._left == 0
        self._inside = not self._last
        return False
