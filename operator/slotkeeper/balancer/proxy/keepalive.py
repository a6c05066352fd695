"""SSE keep-alive: comments to clients whose streaming requests are queued."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.edge.early_response import EarlySseResponse
from slotkeeper.edge.routes import STREAMABLE
from slotkeeper.edge.stream_request import SMALL, wants_stream, wants_stream_large

_MAX_BURST_SECONDS = 0.002
"""Seconds of one run of the timer, before other events get their turn."""


class SseKeepalive:
    """One timer for all queued requests, each due `seconds` after it was queued, and repeatedly.

    A body is searched for `"stream": true` only when its request is first due: most have a slot by
    then. `spawn` starts a task; `position` returns a request's place in the queue.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        position: Callable[[ProxiedRequest], int],
    ) -> None:
        self.seconds = 0.0
        """Between two comments; 0: none are sent."""
        self._position = position
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._due: OrderedDict[ProxiedRequest, float] = OrderedDict()  # the earliest first
        self._inspecting: set[ProxiedRequest] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: ProxiedRequest) -> None:
        """Send comments for a request that is queued, if its response may be a stream."""
        message = request.exchange.request
        # HTTP/1.0 has no chunks.
        if self.seconds and message.http11 and message.path in STREAMABLE:
            self._due[request] = self._loop.time() + self.seconds
            self._arm_timer()

    def discard(self, request: ProxiedRequest) -> None:
        """Send no more comments for a request: it is no longer queued."""
        self._due.pop(request, None)
        self._inspecting.discard(request)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()

    def _arm_timer(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(next(iter(self._due.values())), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        began = now = self._loop.time()
        while self._due and now - began < _MAX_BURST_SECONDS:
            request, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[request]
            self._on_due(request)
            now = self._loop.time()
        self._arm_timer()

    def _on_due(self, request: ProxiedRequest) -> None:
        body = request.exchange.request.body
        if request.early is None and len(body) > SMALL:
            self._inspecting.add(request)
            self._spawn(self._inspect_large(request, body))
        elif request.early or wants_stream(body):
            self._send(request)

    async def _inspect_large(self, request: ProxiedRequest, body: bytes) -> None:
        streams = await wants_stream_large(body)
        if request in self._inspecting:
            self._inspecting.remove(request)
            if streams:
                self._send(request)
                self._arm_timer()

    def _send(self, request: ProxiedRequest) -> None:
        if not request.exchange.paused:
            if request.early is None:
                request.early = EarlySseResponse(request.exchange, request.stats.queue_position)
            request.early.send_keepalive(self._position(request))
        self._due[request] = self._loop.time() + self.seconds
