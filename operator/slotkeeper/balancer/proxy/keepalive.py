"""Signs of life for clients that wait for a stream."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from slotkeeper.edge.early_response import EarlyStream
from slotkeeper.edge.stream_request import SMALL, asks_for_stream, large_asks_for_stream

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.request import Forward

_AT_ONCE = 0.002
"""Seconds that the timer may take before all else gets its turn."""


class Heartbeats:
    """One timer for all that wait: each is due some seconds after it came, and again and again.

    Whether a request asks for a stream is looked at when it is first due: most have a slot by
    then. `spawn` runs something beside, `position` says the place of a request.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        position: Callable[["Forward"], int],
    ) -> None:
        self._position = position
        self.seconds = 0.0
        """Between two signs; 0: nobody gets any."""
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._due: OrderedDict[Forward, float] = OrderedDict()  # the next one first
        self._looked_at: set[Forward] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, forward: "Forward") -> None:
        """It waits from now on."""
        if self.seconds:
            self._due[forward] = self._loop.time() + self.seconds
            self._watch_time()

    def discard(self, forward: "Forward") -> None:
        """It waits no more."""
        self._due.pop(forward, None)
        self._looked_at.discard(forward)

    def close(self) -> None:
        """Nobody gets any more."""
        if self._timer:
            self._timer.cancel()

    def _watch_time(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(next(iter(self._due.values())), self._ring)

    def _ring(self) -> None:
        self._timer = None
        began = now = self._loop.time()
        while self._due and now - began < _AT_ONCE:
            forward, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[forward]
            self._is_due(forward)
            now = self._loop.time()
        self._watch_time()

    def _is_due(self, forward: "Forward") -> None:
        body = forward.exchange.request.body
        if forward.early is None and len(body) > SMALL:
            self._looked_at.add(forward)
            self._spawn(self._look_at_large(forward, body))
        elif forward.early or asks_for_stream(body):
            self._beat(forward)

    async def _look_at_large(self, forward: "Forward", body: bytes) -> None:
        asks = await large_asks_for_stream(body)
        if forward in self._looked_at:
            self._looked_at.remove(forward)
            if asks:
                self._beat(forward)
                self._watch_time()

    def _beat(self, forward: "Forward") -> None:
        if not forward.exchange.paused:
            if forward.early is None:
                forward.early = EarlyStream(forward.exchange, forward.stats.queue_position)
            forward.early.beat(self._position(forward))
        self._due[forward] = self._loop.time() + self.seconds
