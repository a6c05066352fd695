"""A client's connection: one exchange at a time, in the order of the requests."""

import asyncio
import logging
from collections import deque
from typing import cast

from typing_extensions import override

from slotkeeper.wire import sockets
from slotkeeper.wire.budget import SEND_BUFFER
from slotkeeper.wire.connections import Client
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.listener import Listener
from slotkeeper.wire.message import Request, encode_response
from slotkeeper.wire.parse import RequestParser, Stage
from slotkeeper.wire.timer import Timer

_log = logging.getLogger(__name__)

_NO_CLIENT = Client("")

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
        self._parser = RequestParser(
            listener.limits, listener.body_filter.check, listener.body_filter.streams
        )
        self._queue: deque[Request | HttpError] = deque()
        self._exchange: Exchange | None = None
        self._advancing = False
        self._rejected = False  # what still arrives is discarded
        self._rejected_head: Request | None = None
        self._released = False  # the parser is
        self.client = _NO_CLIENT
        self.waiting_bytes = 0
        """Bytes in memory while no request is in progress."""
        self.unauthenticated_bytes = 0
        """Those of them before authentication."""
        self._buffered = 0
        self._unread = 0  # bytes of responses that the client does not read
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
        peer = sockets.peer_address(transport)
        if not self._listener.connections.add(self, peer[0] if peer else ""):
            self._rejected = True
            sockets.reset(self._transport)
            return
        sockets.tune(transport, unread_seconds=self._limits.write_timeout)
        self.peer = sockets.join(*peer) if peer else ""
        self.draining = self._listener.draining
        self._await_request()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse requests, and start the first one if no exchange is in progress."""
        if self._rejected:
            return
        self._queue.extend(self._parser.feed(data))
        connections = self._listener.connections
        if not self.update_buffered() and not connections.relieve(self.client):
            self._over_budget()
        elif self.unauthenticated_bytes:
            connections.relieve_unauthenticated()
            if self._transport.is_closing():
                return
        if self._queue and isinstance(self._queue[-1], HttpError):
            self._rejected = True
        if self._exchange:
            # Reading continues during an exchange, to detect a disconnect. It pauses only once the
            # client has sent its next request: this bounds the memory for pipelined requests.
            if self._queue:
                self.pause(True)
            if stream := self._exchange.request.stream:
                self._await_body()
                stream.deliver()
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
        self._release_parser()
        self._set_buffered(0)
        self._listener.connections.remove(self)

    @override
    def pause_writing(self) -> None:
        """Signal back-pressure: the transport's write buffer is full."""
        self.write_paused = True
        self._timer.start(self._limits.write_timeout, self._reset)
        self._unread = self._transport.get_write_buffer_size() + SEND_BUFFER
        self.update_buffered()
        if self._exchange and self._exchange.on_backpressure:
            self._exchange.on_backpressure(True)

    @override
    def resume_writing(self) -> None:
        """Signal the end of back-pressure: the transport's write buffer has drained."""
        self.write_paused = False
        self._unread = 0
        if self._exchange is None:
            self._advance()
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
        if exchange and exchange.request.stream and not exchange.request.stream.complete:
            exchange.request.stream.stop()
            self.client.waiting[self] = None
            self._linger()
            return
        if exchange and (self.draining or not exchange.request.keep_alive):
            self.client.waiting[self] = None
            self.close(reset=False)
            self.update_buffered()
            return
        self._advance()

    def update_buffered(self) -> bool:
        """Recount this connection's bytes in memory. Return False if they exceed the budget."""
        buffered = self._parser.occupied + self._unread
        if self._queue:
            buffered += sum(
                item.size + item.overhead for item in self._queue if isinstance(item, Request)
            )
        exchange = self._exchange
        if exchange:
            buffered += exchange.request.size + exchange.request.overhead
        elif not self._queue or self.write_paused:
            return self._set_buffered(
                buffered, waiting=buffered, unauthenticated=0 if self._parser.accepted else buffered
            )
        return self._set_buffered(buffered)

    def _set_buffered(self, total: int, *, waiting: int = 0, unauthenticated: int = 0) -> bool:
        """Return False if the bytes grow beyond the budget."""
        growth = total - self._buffered
        waiting_growth = waiting - self.waiting_bytes
        if not (growth or waiting_growth):
            return True
        self._buffered = total
        self.waiting_bytes = waiting
        self.client.waiting_bytes += waiting_growth
        unauthenticated_growth = unauthenticated - self.unauthenticated_bytes
        self.unauthenticated_bytes = unauthenticated
        return self._listener.budget.add(growth, unauthenticated_growth) or growth <= 0

    def close(self, *, reset: bool) -> None:
        """Close after what is already written, or (`reset`) at once with a TCP reset."""
        self._rejected = True
        self._queue.clear()
        if reset:
            self._reset()
        else:
            self._close_when_sent()

    def drain(self) -> None:
        """Close after the response in progress, or now if the connection is idle."""
        self.draining = True
        if self._exchange is None and self._parser.stage is Stage.IDLE and not self._rejected:
            self.close(reset=False)

    # One request after the other.

    def _over_budget(self) -> None:
        self._rejected_head = self._parser.head
        # Requests that arrived in one piece. Left in the queue they would be served all the same.
        while self._queue and self._listener.budget.exceeded:
            last = self._queue.pop()
            self.update_buffered()
            if isinstance(last, Request):
                self._rejected_head = last
        self._queue.append(
            HttpError(
                503,
                "buffer_limit",
                "requests in memory exceed the server's limit",
                retry_after=1,
            )
        )

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        waiting = self.client.waiting
        while self._queue and self._exchange is None and not self.write_paused:
            item = self._queue.popleft()
            if isinstance(item, HttpError):
                self._reject(item)
                break
            self._exchange = Exchange(self, item)
            waiting.pop(self, None)
            self._handle(self._exchange)
        self._advancing = False
        if self._exchange is None:
            waiting[self] = None
        self.update_buffered()
        if self._exchange is None and not self._rejected and not self.write_paused:
            self.pause(False)
            self._await_request()

    def _handle(self, exchange: Exchange) -> None:
        self._timer.stop()
        stream = exchange.request.stream
        if stream:
            stream.on_pause = self._on_body_paused
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
        if stream and self._exchange is exchange:
            self._await_body()

    def _on_body_paused(self) -> None:
        if self._exchange and (stream := self._exchange.request.stream):
            self.pause(stream.paused)
            self._await_body()

    def _await_body(self) -> None:
        """Wait for the next piece of a body that is handled while it arrives."""
        stream = self._exchange and self._exchange.request.stream
        if not stream or stream.complete or stream.paused:
            self._timer.stop()
            return
        self._timer.start(self._limits.body_timeout, self._body_timed_out)
        self._send_continue()

    def _body_timed_out(self) -> None:
        exchange = self._exchange
        self._client_disconnected()
        if exchange and exchange.status:
            self._reset()
        else:
            self._request_timed_out()

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
            self._send_continue()

    def _send_continue(self) -> None:
        if self._parser.expects_continue:
            self._parser.expects_continue = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _request_timed_out(self) -> None:
        self._reject(HttpError(408, "request_timeout", "timed out reading the request"))

    def _reject(self, error: HttpError) -> None:
        head = self._rejected_head or self._parser.head
        self._rejected = True
        self._release_parser()
        self.update_buffered()
        response = self._listener.body_filter.on_rejected(self.peer, error, head)
        self.write(encode_response(response, connection=b"close"))
        self._linger()

    def _linger(self) -> None:
        """Close once the client has read the response, though it has not sent its whole request."""
        self._rejected = True
        self._release_parser()
        self.update_buffered()
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.pause(False)
        self._timer.start(self._limits.lingering_close, self._abort_when_read)

    def _close_when_sent(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._timer.start(self._limits.write_timeout, self._reset)

    def _release_parser(self) -> None:
        if not self._released:
            self._released = True
            self._parser.release()

    def _reset(self) -> None:
        # A regular close would leave what the client has not read to the kernel, for minutes.
        sockets.reset(self._transport)
        self._release_parser()
        self._set_buffered(0)

    def _abort_when_read(self) -> None:
        if self._transport.get_write_buffer_size():
            self._reset()
        else:
            self._transport.abort()

    def _client_disconnected(self) -> None:
        exchange = self._exchange
        self._exchange = None
        if exchange:
            exchange.client_disconnected()
