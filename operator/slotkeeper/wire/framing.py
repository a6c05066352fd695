"""Where a response ends: counted beside the bytes, which pass through untouched."""

from typing import Protocol

from slotkeeper.wire.message import ResponseHead

_MAX_LINE = 16 * 1024

# The size line of a whole chunk, by the length of all of it. Almost every piece of a stream is one
# such chunk, and two comparisons take a sixth of the time of walking through it.
_SIZE_LINES = {
    len(line) + size + 2: line for size in range(1, 2048) for line in (b"%x\r\n" % size,)
}
_HEX = frozenset(b"0123456789abcdefABCDEF")


class BadResponse(Exception):  # noqa: N818 (what came is bad; nothing failed here)
    """The bytes are no response that can be told from the next one."""


class Framing(Protocol):
    """Counts a body's bytes."""

    chunked: bool
    """The body carries chunk framing."""
    until_close: bool
    """The body ends where the connection does."""

    def feed(self, data: bytes) -> int | None:
        """How many bytes of `data` belong to the body, if it ends there; None if it goes on.

        Raises BadResponse.
        """

    def payload(self) -> bytes:
        """The content of the last `feed`, without chunk framing."""


def framing_of(head: ResponseHead, *, to_head: bool = False) -> Framing:
    """How the body behind `head` is framed; `to_head`: it answers a HEAD. Raises BadResponse."""
    if to_head or head.status in {204, 304} or head.status < 200:
        return ContentLength(0)
    if head.codings:
        if head.codings != [b"chunked"]:
            raise BadResponse("a Transfer-Encoding other than chunked")
        if not head.http11:
            raise BadResponse("chunks in HTTP/1.0")
        return Chunked()
    return UntilClose() if head.length is None else ContentLength(head.length)


class ContentLength:
    """A body of a known length."""

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
    """A body that only the connection's end ends."""

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
    """A body in chunks, with its trailers."""

    chunked = True
    until_close = False

    __slots__ = ("_between", "_data", "_inside", "_last", "_left", "_line", "_spans")

    def __init__(self) -> None:
        self._between = True  # the next byte is a size line's first
        self._left = 0  # bytes of the current chunk's content that are still to come
        self._inside = False  # in a chunk, or between its content and its line end
        self._last = False  # the chunk of size 0 has come; what follows are trailers
        self._line = b""
        self._data = b""
        self._spans: list[tuple[int, int]] | None = []  # None: the data is one whole chunk

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
                    raise BadResponse("a chunk's size line without an end")
                return None
            line = self._line + data[at:end]
            self._line = b""
            at = end + 1
            if self._line_ends_body(line):
                return at
        return None

    def _line_ends_body(self, line: bytes) -> bool:
        if not line.endswith(b"\r"):
            raise BadResponse("a chunk's line does not end in CRLF")
        if self._last:
            return line == b"\r"
        if self._inside:
            if line != b"\r":
                raise BadResponse("a chunk is longer than it said")
            self._inside = False
            return False
        digits = line[:-1].partition(b";")[0]
        if not 0 < len(digits) <= 15 or not _HEX.issuperset(digits):
            raise BadResponse("a chunk's size is no number")
        self._left = int(digits, 16)
        self._last = self._left == 0
        self._inside = not self._last
        return False
