"""A client's connection: one exchange at a time, in the order of its requests."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from typing_extensions import override

from slotkeeper.wire import sockets
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, answer_bytes
from slotkeeper.wire.parse import RequestParser, Stage
from slotkeeper.wire.timer import Clock

if TYPE_CHECKING:
    from slotkeeper.wire.server import Server

_log = logging.getLogger(__name__)

_LARGE = 64 * 1024


class Connection(sockets.Pausable):
    """A client's connection."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.peer = ""
        self.behind = False
        """The client does not keep up with what is written."""
        self._limits = server.limits
        self._parser = RequestParser(server.limits, server.gate.admit)
        self._queue: deque[Request | Refusal] = deque()
        self._exchange: Exchange | None = None
        self._advancing = False
        self._refused = False  # what still comes is not looked at
        self._refused_head: Request | None = None
        self._held = 0
        self._clock = Clock(server.loop)

    # What the transport calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self.server.closed:
            # It was accepted before the listener closed, and told of after it.
            self._transport.abort()
            return
        sockets.tune(transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else ""
        self.server.connections.add(self)
        self._wait()

    @override
    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._refused:
            return
        self._queue.extend(self._parser.feed(data))
        if not self.account():
            self._find_no_room()
        if self._queue and isinstance(self._queue[-1], Refusal):
            self._refused = True
        if self._exchange:
            # Reading goes on while a request is in progress, to see its client go. Only one that
            # has sent its next request already is not read from: that is what bounds it.
            if self._queue:
                self.pause(True)
        else:
            self._advance()
        if len(data) >= _LARGE:
            self.let_others_run()

    @override
    def eof_received(self) -> bool | None:
        """The client sends no more: whoever asks an LLM and hangs up waits for no answer."""
        self._gone()
        return None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._clock.stop()
        self._queue.clear()
        self._refused = True
        self._gone()
        self.server.connections.discard(self)
        self.server.room.change(-self._held)
        self._held = 0

    @override
    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.behind = True
        self._clock.start(self._limits.stall, self._transport.abort)
        if self._exchange and self._exchange.on_pause:
            self._exchange.on_pause(True)

    @override
    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.behind = False
        if self._exchange is None:
            self._wait()
            return
        self._clock.stop()
        if self._exchange.on_pause:
            self._exchange.on_pause(False)

    # What exchanges and the server call.

    def write(self, data: bytes) -> None:
        """Send bytes of the answer."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def ended(self) -> None:
        """The exchange in progress is answered."""
        exchange = self._exchange
        self._exchange = None
        if exchange and (self.server.draining or not exchange.request.keep_alive):
            self.close(reset=False)
            return
        self._advance()

    def account(self) -> bool:
        """Note how many bytes of bodies this connection holds; whether there is room for them."""
        held = self._parser.partial
        if self._queue:
            held += sum(item.size for item in self._queue if isinstance(item, Request))
        if self._exchange:
            held += self._exchange.request.size
        if held == self._held:
            return True
        grown = held - self._held
        self._held = held
        return self.server.room.change(grown) or grown < 0

    def close(self, *, reset: bool) -> None:
        """End the connection: after what is written already, or with a reset at once."""
        self._refused = True
        self._queue.clear()
        if reset:
            sockets.reset(self._transport)
        else:
            self._close_when_sent()

    def close_if_idle(self) -> None:
        """End the connection if no request is in progress on it."""
        if self._exchange is None and self._parser.stage is Stage.IDLE:
            self.close(reset=False)

    # One request after the other.

    def _find_no_room(self) -> None:
        self._refused_head = self._parser.head
        if self._queue and isinstance(last := self._queue[-1], Request):
            # It came as one piece: without this it would be served, and refused after that.
            self._queue.pop()
            self._refused_head = last
            self.account()
        self._queue.append(
            Refusal(503, "no_room", "too many request bodies in memory", retry_after=1)
        )

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        while self._queue and self._exchange is None:
            item = self._queue.popleft()
            if isinstance(item, Refusal):
                self._refuse(item)
                break
            self._exchange = Exchange(self, item)
            self._handle(self._exchange)
        self._advancing = False
        self.account()
        if self._exchange is None and not self._refused:
            self.pause(False)
            self._wait()

    def _handle(self, exchange: Exchange) -> None:
        self._clock.stop()
        try:
            self.server.handler(exchange)
        except Exception:
            _log.exception("a request's handler failed")
            if exchange.status == 0:
                exchange.request.keep_alive = False
                exchange.refuse(Refusal(500, "internal", "the balancer failed at this request"))
            else:
                exchange.cut(reset=True)

    def _wait(self) -> None:
        if self._refused:
            return
        parser = self._parser
        limits = self._limits
        if parser.stage is Stage.IDLE:
            self._clock.start(limits.idle, self._close_when_sent)
        elif parser.stage is Stage.HEAD:
            # From the first byte on: one header a second must not go on for ever.
            self._clock.start(limits.head, self._too_slow, keep="head")
        else:
            self._clock.start(limits.body, self._too_slow)
            if parser.expects_continue:
                parser.expects_continue = False
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _too_slow(self) -> None:
        self._refuse(Refusal(408, "too_slow", "the request did not arrive in time"))

    def _refuse(self, refusal: Refusal) -> None:
        self._refused = True
        head = self._refused_head or self._parser.head
        answer = self.server.gate.refused(self.peer, refusal, head)
        self.write(answer_bytes(answer, connection=b"close"))
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.pause(False)
        self._clock.start(self._limits.linger, self._transport.abort)

    def _close_when_sent(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._clock.start(self._limits.stall, self._transport.abort)

    def _gone(self) -> None:
        exchange = self._exchange
        self._exchange = None
        if exchange:
            exchange.lost()
