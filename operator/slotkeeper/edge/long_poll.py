"""Those who ask for the demand where there is none, and would rather hear of the first request."""

import asyncio
from collections.abc import Callable

from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Response

MAX_SECONDS = 30.0
"""Seconds. Whoever asks for longer is answered then."""


class LongPoll:
    """Holds their questions, until there is something to tell or their time is over."""

    def __init__(self, answer: Callable[[], Response]) -> None:
        self._answer = answer
        self._held: dict[Exchange, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def hold(self, exchange: Exchange, seconds: float) -> None:
        """Answer after `seconds`, unless `tell` comes first."""
        due = min(seconds, MAX_SECONDS)
        self._held[exchange] = self._loop.call_later(due, self._answer_one, exchange)
        exchange.on_disconnect = lambda: self._drop(exchange)

    def release_all(self) -> None:
        """There is something to tell: answer all of them."""
        for exchange in list(self._held):
            self._answer_one(exchange)

    def _answer_one(self, exchange: Exchange) -> None:
        self._drop(exchange)
        exchange.on_disconnect = None
        exchange.respond(self._answer())

    def _drop(self, exchange: Exchange) -> None:
        self._held.pop(exchange).cancel()
