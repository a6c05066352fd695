"""One forwarded request, and the response that passes through."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from slotkeeper.edge.cors import CorsPolicy
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.pass_through import PassThrough
from slotkeeper.edge.usage import BodyEdges
from slotkeeper.error_text import describe
from slotkeeper.gateway.config import Timeouts
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.observed_response import ObservedResponse
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead
from slotkeeper.wire.timer import Timer

RECONNECT_SECONDS = 0.2
"""Delay before the second attempt to connect: a balancer may be just being replaced."""
STALE_SECONDS = 1.0
"""A kept connection that is lost without a response within this time had been closed by the server
before it read the request."""


class RequestHost(Protocol):
    """What a request reports to."""

    @property
    def now(self) -> Callable[[], float]:
        """The event loop's clock, in seconds."""

    @property
    def cors(self) -> CorsPolicy:
        """The origins that may read responses."""

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task."""

    def on_retry(self, request: "GatewayRequest") -> None:
        """Count a retry."""

    def on_released(self, request: "GatewayRequest") -> None:
        """Forget the request: it occupies nothing any more."""

    def on_finished(self, request: "GatewayRequest", outcome: Outcome) -> None:
        """Record the request: its client has been served or has disconnected."""


@dataclass(slots=True)
class RequestStats:
    """Measurements of one request. Times are seconds of the event loop's clock."""

    arrived_at: float
    received_bytes: int
    """Of the request's body."""
    first_byte_at: float | None = None
    """When the first byte of the response's body arrived."""
    sent_bytes: int = 0
    """Of the response's body."""
    edges: BodyEdges = field(default_factory=BodyEdges)
    """The first and last bytes of the response's body, which contain the token counts."""
    response: ObservedResponse = field(default_factory=ObservedResponse)


class GatewayRequest:
    """A request for a server, and the Receiver of its response.

    Its body is kept only as long as it may have to be sent again: until a new connection has taken
    it, or for a second on a kept one. A balancer may queue the request for minutes.
    """

    # fmt: off
    __slots__ = (
        "_body_sent",
        "_connection",
        "_ended",
        "_head",
        "_host",
        "_output",
        "_pool",
        "_settled",
        "_timeouts",
        "_timer",
        "exchange",
        "key",
        "model",
        "requested",
        "retried",
        "stats",
    )
    # fmt: on

    def __init__(
        self,
        host: RequestHost,
        exchange: Exchange,
        model: Model,
        key: str | None,
        timeouts: Timeouts,
    ) -> None:
        self.exchange = exchange
        self.model = model
        self.key = key
        """The name of its API key."""
        self.requested: str | None = None
        """The name by which it requested its model; None: it named none."""
        self.stats = RequestStats(host.now(), exchange.request.size)
        self.retried = False
        """It was sent again, or the connection was opened again."""
        self._host = host
        self._timeouts = timeouts
        self._timer = Timer(asyncio.get_running_loop())
        self._output = PassThrough(exchange)
        self._head = b""
        self._pool: Pool
        self._connection: UpstreamConnection | None = None
        self._settled = False
        self._body_sent = False
        self._ended = False

    def start(self, pool: Pool, head: bytes) -> None:
        """Send the request, with this encoded head, over a connection of `pool`."""
        self._pool = pool
        self._head = head
        self.exchange.on_disconnect = self.abort_upstream
        connection = pool.acquire()
        if connection:
            self._send(connection)
        else:
            self._host.spawn(self._connect())

    def abort_upstream(self) -> None:
        """End the request: the client has closed its connection, or must."""
        if self._ended:
            return
        self._abort_connection()
        self._release()
        self._host.on_finished(self, Outcome.CLIENT_DISCONNECTED)

    def abort(self) -> None:
        """End the request, whatever its state: the gateway shuts down."""
        self.abort_upstream()
        self.exchange.abort(reset=True)

    # Attempts.

    async def _connect(self) -> None:
        connection = await self._try_connect()
        if connection is None:
            return
        if self._ended:
            self._pool.release(connection)
        else:
            self._send(connection)

    async def _try_connect(self) -> UpstreamConnection | None:
        while self._is_open():
            try:
                return await self._pool.connect()
            except OSError as error:
                reason = describe(error)
            if not self._is_open():
                break
            if self.retried:
                self._respond_with_error(_unreachable(self.model, reason), Outcome.FAILED)
                break
            self._retry()
            await asyncio.sleep(RECONNECT_SECONDS)
        return None

    def _is_open(self) -> bool:
        # A function: type checkers assume that an attribute does not change in an await.
        return not self._ended

    def _retry(self) -> None:
        self.retried = True
        self._host.on_retry(self)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        self._settled = not connection.reused
        if self._settled:
            self._timer.start(self._timeouts.first_byte, self._on_timeout)
        else:
            self._timer.start(STALE_SECONDS, self._on_settled)
        exchange.on_backpressure = connection.pause
        if exchange.paused:
            connection.pause(True)
        connection.send(
            self._head,
            request.parts,
            self,
            to_head=request.method == b"HEAD",
            on_sent=self._on_sent,
        )

    def _on_sent(self) -> None:
        self._body_sent = True
        self._release_body()

    def _on_settled(self) -> None:
        self._settled = True
        self._timer.start(max(0.0, self._timeouts.first_byte - STALE_SECONDS), self._on_timeout)
        self._release_body()

    def _release_body(self) -> None:
        if self._body_sent and self._settled and not self._ended:
            self.exchange.release_body()

    def _on_timeout(self) -> None:
        self._abort_connection()
        if self.exchange.status:
            self._abort_response()
        else:
            self._respond_with_error(
                HttpError(
                    504,
                    "server_timeout",
                    f"the server of model {self.model.name} has sent no response for "
                    f"{self._timeouts.first_byte:g} s",
                ),
                Outcome.TIMED_OUT,
            )

    # Ends.

    def _abort_connection(self) -> None:
        connection = self._connection
        self._connection = None
        if connection:
            # A balancer notices a closed connection, and only then frees the slot.
            connection.abort()

    def _respond_with_error(self, error: HttpError, outcome: Outcome) -> None:
        self._release()
        self._host.cors.respond_with_error(self.exchange, error)
        self._host.on_finished(self, outcome)

    def _abort_response(self) -> None:
        self._release()
        self.exchange.abort(reset=self._output.close_ends_body)
        self._host.on_finished(self, Outcome.ABORTED)

    def _release(self) -> None:
        # Before the exchange ends: the next pipelined request counts in the limits too.
        self._ended = True
        self._timer.stop()
        self.exchange.on_disconnect = self.exchange.on_backpressure = None
        # Only the garbage collector frees objects that refer to each other.
        self.exchange.release_body()
        self._host.on_released(self)

    # Receiver of the response: callbacks of the upstream connection.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Pass the head on."""
        exchange = self.exchange
        self._timer.start(self._timeouts.idle, self._on_timeout)
        exchange.release_body()
        self.stats.response.on_head(head)
        added = self._host.cors.allow_origin_headers(exchange.request)
        self._output.begin(head, framing, added, more=more)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Pass a piece of the body on."""
        stats = self.stats
        if stats.first_byte_at is None:
            stats.first_byte_at = self._host.now()
        stats.sent_bytes += len(data)
        output = self._output
        output.write(data if output.unchanged else framing.payload())
        stats.edges.append(data)
        stats.response.on_body(data, self._host.now)
        self._timer.start(self._timeouts.idle, self._on_timeout)

    def on_end(self) -> None:
        """End the response."""
        self._connection = None
        self._output.write(b"")
        self._release()
        self._host.on_finished(self, Outcome.COMPLETED)
        self.exchange.end()

    def on_lost(self, reason: str, *, began: bool) -> None:
        """Send the request again if the server cannot have read it, or else fail."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        if not (began or self._settled or self.retried):
            self._timer.stop()
            self._retry()
            # Further kept connections may be closed as well.
            self._host.spawn(self._connect())
        elif self.exchange.status:
            self._abort_response()
        else:
            self._respond_with_error(
                HttpError(
                    502,
                    "server_failed",
                    f"the server of model {self.model.name} failed to respond: {reason}",
                ),
                Outcome.FAILED,
            )


def _unreachable(model: Model, reason: str) -> HttpError:
    return HttpError(
        502,
        "server_unreachable",
        f"cannot connect to the server of model {model.name}, which is {model.state}: {reason}",
    )
