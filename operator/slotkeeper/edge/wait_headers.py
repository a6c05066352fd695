"""How long a request waited for its slot, as response headers."""

from slotkeeper.wire.message import Header, Headers

QUEUE_POSITION = b"X-Slotkeeper-Queue-Position"
WAIT_SECONDS = b"X-Slotkeeper-Wait-Seconds"
"""Headers that an answer that is passed on gets from us."""


def waiting_headers(seconds: float, position: int | None) -> Headers:
    """How long a request has waited, and its place when it came; None: there was none for it."""
    headers = [] if position is None else [position_header(position)]
    return [*headers, (WAIT_SECONDS, b"%.3f" % seconds)]


def position_header(position: int) -> Header:
    """The place in the queue that a request had when it came."""
    return QUEUE_POSITION, b"%d" % position
