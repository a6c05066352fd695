"""Access log: one line of JSON for each finished request."""

import json
from collections.abc import Callable
from typing import TextIO

from slotkeeper.edge.routes import display_path
from slotkeeper.edge.trace_context import trace_id
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request

_FLUSH_SECONDS = 0.2


class AccessLog:
    """Buffers lines and writes them a few times a second: one write per request is expensive.

    `stream` is None to log nothing. `call_later` calls a function after some seconds, as a loop's
    method does. `wall_clock` returns the time of day in seconds since 1970.
    """

    def __init__(
        self,
        stream: TextIO | None,
        call_later: Callable[[float, Callable[[], None]], object],
        wall_clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._call_later = call_later
        self._wall_clock = wall_clock
        self._lines: list[str] = []

    @property
    def enabled(self) -> bool:
        """Whether requests are logged."""
        return self._stream is not None

    def add(self, fields: dict[str, object]) -> None:
        """Log a request. Floats are rounded to 6 digits: times in seconds to the microsecond."""
        if self._stream is None:
            return
        rounded = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in fields.items()
        }
        if not self._lines:
            self._call_later(_FLUSH_SECONDS, self.flush)
        self._lines.append(json.dumps({"time": round(self._wall_clock(), 3), **rounded}))

    def flush(self) -> None:
        """Write the buffered lines."""
        if self._stream is None or not self._lines:
            return
        lines = self._lines
        self._lines = []
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


def exchange_fields(exchange: Exchange, key: str | None) -> dict[str, object]:
    """Return the fields that the lines of all complete requests share.

    `key` is the name of the request's API key.
    """
    return {
        **request_fields(exchange.peer, key, exchange.request),
        "status": exchange.status or None,
    }


def request_fields(peer: str, key: str | None, request: Request | None) -> dict[str, object]:
    """Return the fields that describe a request; if its head is incomplete (None), most are None.

    `peer` is the client's address, `key` the name of its API key.
    """
    return {
        "client": peer,
        "key": key,
        "method": request.method.decode() if request else None,
        "path": display_path(request.path) if request else None,
        "trace": trace_id(request) if request else None,
    }
