"""What the usage of a request is measured by, besides token counts: read from its response."""

import re
from collections.abc import Callable
from typing import Final

from slotkeeper.edge.wait_headers import QUEUE_POSITION, WAIT_SECONDS
from slotkeeper.wire.message import ResponseHead, value_of

# In JSON text a quote is always escaped: generated text cannot contain the beginning of an event.
_EVENT: Final = b'data: {"'
_WAIT: Final = WAIT_SECONDS.lower()
_POSITION: Final = QUEUE_POSITION.lower()
_SECONDS: Final = re.compile(rb"[0-9]{1,7}(\.[0-9]{1,6})?")


class ObservedResponse:
    """Whether a response is a stream, how many events it had, and how long it was queued."""

    __slots__ = (
        "_kept_alive",
        "_reported_wait",
        "events",
        "first_event_at",
        "stream",
    )

    def __init__(self) -> None:
        self.stream = False
        """It is a stream of events."""
        self.events = 0
        """JSON events so far: about one for each generated token."""
        self.first_event_at: float | None = None
        """When the first of them arrived, by the event loop's clock: keep-alive comments are none.
        """
        self._reported_wait: float | None = None
        self._kept_alive = False

    def on_head(self, head: ResponseHead, *, reports_wait: bool) -> None:
        """Read the head of a response; `reports_wait`: of a balancer, which is believed."""
        content_type = value_of(head.headers, b"content-type") or b""
        self.stream = content_type[:17].lower() == b"text/event-stream"
        if not reports_wait:
            return
        wait = value_of(head.headers, _WAIT)
        if wait is None:
            # The balancer has sent the head while the request was queued, for keep-alive comments.
            self._kept_alive = value_of(head.headers, _POSITION) is not None
        elif _SECONDS.fullmatch(wait):
            self._reported_wait = float(wait)

    def on_body(self, data: bytes, now: Callable[[], float]) -> None:
        """Read a piece of the body, as received."""
        if self.stream and (count := data.count(_EVENT)):
            if not self.events:
                self.first_event_at = now()
            self.events += count

    def queue_seconds(self, arrived_at: float) -> float | None:
        """Return the time in the server's queue; None if the server has not reported it.

        Of a stream with keep-alive comments: the time until its first event, which is an upper
        bound, since it contains the processing of the prompt.
        """
        if self._kept_alive and self.first_event_at is not None:
            return self.first_event_at - arrived_at
        return self._reported_wait
