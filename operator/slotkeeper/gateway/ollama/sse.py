"""A parser of server-sent events that arrive in pieces. Pure."""

MAX_EVENT = 1024 * 1024
"""Bytes of an event's data, and of a line."""


class EventTooLarge(Exception):  # noqa: N818 (the event is too large; nothing failed here)
    """An event is larger than MAX_EVENT."""


class EventParser:
    """Finds the data of events. `comments` counts comments, such as those of a queued request."""

    __slots__ = ("_data", "_line", "_size", "comments")

    def __init__(self) -> None:
        self.comments = 0
        self._line = b""  # the beginning of a line
        self._data: list[bytes] = []  # lines of the current event
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of each event that ends in these bytes. Raises EventTooLarge."""
        found = []
        *lines, rest = (self._line + data).split(b"\n")
        for received in lines:
            line = received.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._size += len(line)
                self._data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b":"):
                self.comments += 1
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data = []
                self._size = 0
            if self._size > MAX_EVENT:
                raise EventTooLarge
        if len(rest) > MAX_EVENT:
            raise EventTooLarge
        self._line = rest
        return found
