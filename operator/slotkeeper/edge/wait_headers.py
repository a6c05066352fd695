"""Response headers with the queue position and queue wait of a request."""

from slotkeeper.wire.message import Header, Headers

QUEUE_POSITION = b"X-Slotkeeper-Queue-Position"
WAIT_SECONDS = b"X-Slotkeeper-Wait-Seconds"


def wait_headers(seconds: float, position: int | None) -> Headers:
    """Return the headers for a request that was queued for `seconds`.

    `position` is its queue position on arrival; None if the queue was full.
    """
    headers = [] if position is None else [position_header(position)]
    return [*headers, (WAIT_SECONDS, b"%.3f" % seconds)]


def position_header(position: int) -> Header:
    """Return the header with the queue position of a request on arrival."""
    return QUEUE_POSITION, b"%d" % position
