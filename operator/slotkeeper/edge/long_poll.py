"""Long polling: hold requests until there is something to report."""

import asyncio
from collections.abc import Callable

from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Response

MAX_SECONDS = 30.0
"""A longer requested timeout is reduced to this, by default."""


class LongPoll:
    """Holds requests until `release_all` is called or their timeouts expire.

    `response` returns the current response. Timeouts are reduced to `max_seconds`.
    """

    def __init__(self, response: Callable[[], Response], max_seconds: float = MAX_SECONDS) -> None:
        self._response = response
        self._max_seconds = max_seconds
        self._held: dict[Exchange, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """The number of held requests."""
        return len(self._held)

    def hold(self, exchange: Exchange, seconds: float) -> None:
        """Respond after `seconds`, or when `release_all` is called."""
        timeout = min(seconds, self._max_seconds)
        self._held[exchange] = self._loop.call_later(timeout, self._release, exchange)
        exchange.on_disconnect = lambda: self._drop(exchange)

    def release_all(self) -> None:
        """Respond to all held requests now."""
        for exchange in list(self._held):
            self._release(exchange)

    def _release(self, exchange: Exchange) -> None:
        self._drop(exchange)
        exchange.on_disconnect = None
        exchange.respond(self._response())

    def _drop(self, exchange: Exchange) -> None:
        self._held.pop(exchange).cancel()
