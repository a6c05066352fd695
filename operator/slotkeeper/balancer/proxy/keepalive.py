"""Signs of life for clients that wait for a stream."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from slotkeeper.edge.early_response import EarlySseResponse
from slotkeeper.edge.stream_request import SMALL, wants_stream, wants_stream_large

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.request import ProxiedRequest

_MAX_BURST_SECONDS = 0.002
"""Seconds that the timer may take before all else gets its turn."""


class SseKeepalive:
    """One timer for all that wait: each is due some seconds after it came, and again and again.

    Whether a request asks for a stream is looked at when it is first due: most have a slot by
    then. `spawn` runs something beside, `position` says the place of a request.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        position: Callable[["ProxiedRequest"], int],
    ) -> None:
        self._position = position
        self.seconds = 0.0
        """Between two signs; 0: nobody gets any."""
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._due: OrderedDict[ProxiedRequest, float] = OrderedDict()  # the next one first
        self._inspecting: set[ProxiedRequest] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, forward: "ProxiedRequest") -> None:
        """It waits from now on."""
        if self.seconds:
            self._due[forward] = self._loop.time() + self.seconds
            self._arm_timer()

    def discard(self, forward: "ProxiedRequest") -> None:
        """It waits no more."""
        self._due.pop(forward, None)
        self._inspecting.discard(forward)

    def close(self) -> None:
        """Nobody gets any more."""
        if self._timer:
            self._timer.cancel()

    def _arm_timer(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(next(iter(self._due.values())), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        began = now = self._loop.time()
        while self._due and now - began < _MAX_BURST_SECONDS:
            forward, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[forward]
            self._is_due(forward)
            now = self._loop.time()
        self._arm_timer()

    def _is_due(self, forward: "ProxiedRequest") -> None:
        body = forward.exchange.request.body
        if forward.early is None and len(body) > SMALL:
            self._inspecting.add(forward)
            self._spawn(self._inspect_large(forward, body))
        elif forward.early or wants_stream(body):
            self._send(forward)

    async def _inspect_large(self, forward: "ProxiedRequest", body: bytes) -> None:
        asks = await wants_stream_large(body)
        if forward in self._inspecting:
            self._inspecting.remove(forward)
            if asks:
                self._send(forward)
                self._arm_timer()

    def _send(self, forward: "ProxiedRequest") -> None:
        if not forward.exchange.paused:
            if forward.early is None:
                forward.early = EarlySseResponse(forward.exchange, forward.stats.queue_position)
            forward.early.send_keepalive(self._position(forward))
        self._due[forward] = self._loop.time() + self.seconds
