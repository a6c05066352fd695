"""The memory that clients occupy: one budget for all connections of a listening address."""

REQUEST_OVERHEAD = 2048
"""Bytes of the objects of one request, besides its head and body."""
HEADER_OVERHEAD = 160
"""Bytes of the objects of one header, besides its characters: a tuple and two bytes objects."""
SEND_BUFFER = 64 * 1024
"""Bytes of unsent data that the kernel buffers for a connection: see sockets.tune."""

_UNAUTHENTICATED_SHARE = 4


class MemoryBudget:
    """Bytes in memory for clients: heads, bodies, and responses that they do not read.

    Bytes of connections without an authenticated request may be a quarter of the whole at most, so
    that clients without an API key cannot fill the memory of those with one.
    """

    __slots__ = ("_limit", "_low_mark", "_unauthenticated_limit", "buffered", "unauthenticated")

    def __init__(self, limit: int) -> None:
        self.buffered = 0
        """All bytes."""
        self.unauthenticated = 0
        """Those before authentication."""
        self._limit = limit
        self._unauthenticated_limit = limit // _UNAUTHENTICATED_SHARE
        self._low_mark = self._unauthenticated_limit * 7 // 8

    def add(self, difference: int, unauthenticated: int) -> bool:
        """Add `difference` bytes, `unauthenticated` of them before authentication.

        Both may be negative. Returns whether the total is in budget.
        """
        self.buffered += difference
        self.unauthenticated += unauthenticated
        return self.buffered <= self._limit

    @property
    def exceeded(self) -> bool:
        """Whether the total is above the budget."""
        return self.buffered > self._limit

    @property
    def unauthenticated_exceeded(self) -> bool:
        """Whether the bytes before authentication are above their part of the budget."""
        return self.unauthenticated > self._unauthenticated_limit

    @property
    def unauthenticated_relieved(self) -> bool:
        """Whether enough of them are freed: somewhat more than needed, to do it seldom."""
        return self.unauthenticated <= self._low_mark
