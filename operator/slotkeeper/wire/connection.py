"""A client's connection: one exchange at a time, in the order of the requests."""

import asyncio
import logging
from collections import deque
from typing import cast

from typing_extensions import override

from slotkeeper.wire import sockets
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.listener import Listener
from slotkeeper.wire.message import Request, encode_response
from slotkeeper.wire.parse import RequestParser, Stage
from slotkeeper.wire.timer import Timer

_log = logging.getLogger(__name__)

_LARGE_READ = 64 * 1024
"""Bytes. After a read of this size more data is probably available."""


class DownstreamConnection(sockets.Pausable):
    """A client's connection."""

    def __init__(self, listener: Listener) -> None:
        self.peer = ""
        """HOST:PORT of the client; empty if unknown."""
        self.write_paused = False
        """The client reads more slowly than the response is written."""
        self.draining = False
        """The connection closes after the response in progress, or else after the next one."""
        self._listener = listener
        self._limits = listener.limits
        self._parser = RequestParser(listener.limits, listener.body_filter.check)
        self._queue: deque[Request | HttpError] = deque()
        self._exchange: Exchange | None = None
        self._advancing = False
        self._rejected = False  # what still arrives is discarded
        self._rejected_head: Request | None = None
        self._buffered = 0
        self._timer = Timer(listener.loop)

    # asyncio.Protocol callbacks.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and wait for its first request."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._listener.closed:
            # It was accepted before the listener closed, but this callback came after.
            self._transport.abort()
            return
        sockets.tune(transport)
        self.peer = sockets.peer_name(transport)
        self.draining = self._listener.draining
        self._listener.connections.add(self)
        self._await_request()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse requests, and start the first one if no exchange is in progress."""
        if self._rejected:
            return
        self._queue.extend(self._parser.feed(data))
        if not self.update_buffered():
            self._over_budget()
        if self._queue and isinstance(self._queue[-1], HttpError):
            self._rejected = True
        if self._exchange:
            # Reading continues during an exchange, to detect a disconnect. It pauses only once the
            # client has sent its next request: this bounds the memory for pipelined requests.
            if self._queue:
                self.pause(True)
        else:
            self._advance()
        if len(data) >= _LARGE_READ:
            self.yield_to_loop()

    @override
    def eof_received(self) -> bool | None:
        """Handle a half-closed connection as closed: its client does not wait for the response."""
        self._client_disconnected()
        return None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in progress and deregister the connection."""
        self._timer.stop()
        self._queue.clear()
        self._rejected = True
        self._client_disconnected()
        self._listener.connections.discard(self)
        self._listener.budget.add(-self._buffered)
        self._buffered = 0

    @override
    def pause_writing(self) -> None:
        """Signal back-pressure: the transport's write buffer is full."""
        self.write_paused = True
        self._timer.start(self._limits.write_timeout, self._transport.abort)
        if self._exchange and self._exchange.on_backpressure:
            self._exchange.on_backpressure(True)

    @override
    def resume_writing(self) -> None:
        """Signal the end of back-pressure: the transport's write buffer has drained."""
        self.write_paused = False
        if self._exchange is None:
            self._await_request()
            return
        self._timer.stop()
        if self._exchange.on_backpressure:
            self._exchange.on_backpressure(False)

    # Called by exchanges and by the server.

    def write(self, data: bytes) -> None:
        """Send bytes of the response."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def exchange_ended(self) -> None:
        """Continue with the next request, or close: the response is complete."""
        exchange = self._exchange
        self._exchange = None
        if exchange and (self.draining or not exchange.request.keep_alive):
            self.close(reset=False)
            return
        self._advance()

    def update_buffered(self) -> bool:
        """Recount this connection's body bytes. Return False if they grow beyond the budget."""
        buffered = self._parser.partial
        if self._queue:
            buffered += sum(item.size for item in self._queue if isinstance(item, Request))
        if self._exchange:
            buffered += self._exchange.request.size
        if buffered == self._buffered:
            return True
        growth = buffered - self._buffered
        self._buffered = buffered
        return self._listener.budget.add(growth) or growth < 0

    def close(self, *, reset: bool) -> None:
        """Close after what is already written, or (`reset`) at once with a TCP reset."""
        self._rejected = True
        self._queue.clear()
        if reset:
            sockets.reset(self._transport)
        else:
            self._close_when_sent()

    def drain(self) -> None:
        """Close after the response in progress, or now if the connection is idle."""
        self.draining = True
        if self._exchange is None and self._parser.stage is Stage.IDLE:
            self.close(reset=False)

    # One request after the other.

    def _over_budget(self) -> None:
        self._rejected_head = self._parser.head
        if self._queue and isinstance(last := self._queue[-1], Request):
            # It arrived in one piece. Left in the queue it would be served, and rejected after.
            self._queue.pop()
            self._rejected_head = last
            self.update_buffered()
        self._queue.append(
            HttpError(
                503,
                "buffer_limit",
                "request bodies in memory exceed the server's limit",
                retry_after=1,
            )
        )

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        while self._queue and self._exchange is None:
            item = self._queue.popleft()
            if isinstance(item, HttpError):
                self._reject(item)
                break
            self._exchange = Exchange(self, item)
            self._handle(self._exchange)
        self._advancing = False
        self.update_buffered()
        if self._exchange is None and not self._rejected:
            self.pause(False)
            self._await_request()

    def _handle(self, exchange: Exchange) -> None:
        self._timer.stop()
        try:
            self._listener.handler(exchange)
        except Exception:
            _log.exception("request handler failed")
            if exchange.status == 0:
                exchange.request.keep_alive = False
                exchange.respond_with_error(
                    HttpError(500, "internal_error", "internal error while handling the request")
                )
            else:
                exchange.abort(reset=True)

    def _await_request(self) -> None:
        if self._rejected:
            return
        parser = self._parser
        limits = self._limits
        if parser.stage is Stage.IDLE:
            self._timer.start(limits.idle_timeout, self._close_when_sent)
        elif parser.stage is Stage.HEAD:
            # From the first byte on: one header a second must not hold the connection indefinitely.
            self._timer.start(limits.head_timeout, self._request_timed_out, phase="head")
        else:
            self._timer.start(limits.body_timeout, self._request_timed_out)
            if parser.expects_continue:
                parser.expects_continue = False
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _request_timed_out(self) -> None:
        self._reject(HttpError(408, "request_timeout", "timed out reading the request"))

    def _reject(self, error: HttpError) -> None:
        self._rejected = True
        head = self._rejected_head or self._parser.head
        response = self._listener.body_filter.on_rejected(self.peer, error, head)
        self.write(encode_response(response, connection=b"close"))
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.pause(False)
        self._timer.start(self._limits.lingering_close, self._transport.abort)

    def _close_when_sent(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._timer.start(self._limits.write_timeout, self._transport.abort)

    def _client_disconnected(self) -> None:
        exchange = self._exchange
        self._exchange = None
        if exchange:
            exchange.client_disconnected()
