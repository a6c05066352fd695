"""One line of JSON for each request that is over."""

import json
from collections.abc import Callable
from typing import TextIO

from slotkeeper.edge.routes import display_path
from slotkeeper.edge.trace_context import trace_id
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request

_FLUSH_SECONDS = 0.2


class AccessLog:
    """Lines are gathered and written a few times a second: a write a request is dear.

    `later` calls something after some seconds (a loop's call_later), `wall` is the time of day in
    seconds since 1970.
    """

    def __init__(
        self,
        stream: TextIO | None,
        later: Callable[[float, Callable[[], None]], object],
        wall: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._later = later
        self._wall = wall
        self._lines: list[str] = []

    @property
    def enabled(self) -> bool:
        """Somebody reads it."""
        return self._stream is not None

    def add(self, fields: dict[str, object]) -> None:
        """Log a request; times in seconds are rounded to the microsecond here."""
        if self._stream is None:
            return
        tidy = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in fields.items()
        }
        if not self._lines:
            self._later(_FLUSH_SECONDS, self.flush)
        self._lines.append(json.dumps({"time": round(self._wall(), 3), **tidy}))

    def flush(self) -> None:
        """Write what was gathered."""
        if self._stream is None or not self._lines:
            return
        lines = self._lines
        self._lines = []
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


def exchange_fields(exchange: Exchange, key: str | None) -> dict[str, object]:
    """What was asked and answered: the part of a line that all requests have.

    `key`: the name of its API key.
    """
    return {
        **request_fields(exchange.peer, key, exchange.request),
        "status": exchange.status or None,
    }


def request_fields(peer: str, key: str | None, request: Request | None) -> dict[str, object]:
    """What was asked, as far as it is known, by whom, with the API key called `key`."""
    return {
        "client": peer,
        "key": key,
        "method": request.method.decode() if request else None,
        "path": display_path(request.path) if request else None,
        "trace": trace_id(request) if request else None,
    }
