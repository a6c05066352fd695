"""One forwarded request, and the response that passes through."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from slotkeeper.edge.cors import CorsPolicy
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.pass_through import PassThrough
from slotkeeper.edge.usage import BodyEdges
from slotkeeper.gateway.backends import responses
from slotkeeper.gateway.backends.registry import Backends
from slotkeeper.gateway.config import Timeouts
from slotkeeper.gateway.error_bodies import ErrorBody, server_trigger, whole_response
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.shadow import Pair
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.gateway.targets import BackendModel, Plan, Target, served_header
from slotkeeper.gateway.upstream_errors import (
    incomplete_error,
    internal_error,
    lost,
    no_response,
    not_passed_on,
    unreachable,
)
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead
from slotkeeper.wire.timer import Timer

_log = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.2
"""Delay before the second attempt to connect: a balancer may be just being replaced."""
STALE_SECONDS = 1.0
"""A kept connection that is lost without a response within this time had been closed by the server
before it read the request."""
ERROR_SECONDS = 10.0
"""From the head of an error response to its end, where it is kept until it is complete."""


class RequestHost(Protocol):
    """What a request reports to."""

    @property
    def now(self) -> Callable[[], float]:
        """The event loop's clock, in seconds."""

    @property
    def cors(self) -> CorsPolicy:
        """The origins that may read responses."""

    @property
    def backends(self) -> Backends:
        """The external backends."""

    @property
    def read_lock(self) -> asyncio.Lock:
        """Held while there is a copy of a large body."""

    def server_attempt(self, request: "GatewayRequest", model: Model) -> tuple[Pool, bytes]:
        """Return the connections to the server of a model, and the head of the request."""

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task."""

    def on_retry(self, request: "GatewayRequest") -> None:
        """Count a retry."""

    def on_fallback(self, request: "GatewayRequest", target: Target, trigger: Trigger) -> None:
        """Count that the request is sent to `target` in place of its current model."""

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
    error_code: str | None = None
    """Of the gateway's own error response."""
    edges: BodyEdges = field(default_factory=BodyEdges)
    """The first and last bytes of the response's body, which contain the token counts."""


class GatewayRequest:
    """A request for a model, and the Receiver of its response.

    It is sent to the first target of its plan, and to the next one if that fails before any of a
    response was sent to the client. Its body is kept only as long as it may have to be sent again:
    until a new connection to the last target has taken it, or for a second on a kept one. A
    balancer may queue the request for minutes.
    """

    # fmt: off
    __slots__ = (
        "_body_sent",
        "_connection",
        "_ended",
        "_error",
        "_head",
        "_host",
        "_may_retry",
        "_next",
        "_output",
        "_parts",
        "_plan",
        "_pool",
        "_settled",
        "_timeouts",
        "_timer",
        "exchange",
        "key",
        "model",
        "retried",
        "shadow",
        "stats",
    )
    # fmt: on

    def __init__(
        self,
        host: RequestHost,
        exchange: Exchange,
        plan: Plan,
        key: str | None,
        timeouts: Timeouts,
    ) -> None:
        self.exchange = exchange
        self.model: Target = plan.targets[0]
        """The target that the request was sent to last."""
        self.key = key
        """The name of its API key."""
        self.stats = RequestStats(host.now(), exchange.request.size)
        self.retried = False
        """It was sent again, or the connection was opened again."""
        self.shadow: Pair | None = None
        """A copy of the request for another model."""
        self._host = host
        self._plan = plan
        self._next = 1  # of the plan's targets
        self._timeouts = timeouts
        self._timer = Timer(asyncio.get_running_loop())
        self._output = PassThrough(exchange)
        self._head = b""
        self._parts: Sequence[bytes] = ()
        self._pool: Pool
        self._connection: UpstreamConnection | None = None
        self._may_retry = True
        self._settled = False
        self._body_sent = False
        self._error: ErrorBody | None = None  # an error response that is kept until it is complete
        self._ended = False

    @property
    def first_model(self) -> Target:
        """The target that the request was sent to first."""
        return self._plan.first

    def start(self) -> None:
        """Send the request."""
        self.exchange.on_disconnect = self.abort_upstream
        self._try_model()

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

    # Targets.

    def _try_model(self) -> None:
        model = self.model
        self._may_retry = True
        self._settled = self._body_sent = False
        self._error = None
        if isinstance(model, BackendModel):
            self._host.spawn(self._prepare(model))
        else:
            pool, head = self._host.server_attempt(self, model)
            self._start_attempt(pool, head, self.exchange.request.parts)

    async def _prepare(self, model: BackendModel) -> None:
        host = self._host
        try:
            outgoing = await host.backends.prepare(self.exchange.request, model, host.read_lock)
        except HttpError as error:
            if self._is_open():
                trigger: Trigger | None = "Failed" if error.status >= 500 else None
                self._fail(error, Outcome.REJECTED, trigger)
            return
        except Exception:
            _log.exception("sending a request to backend %s failed", model.server)
            if self._is_open():
                self._respond_with_error(internal_error(), Outcome.FAILED)
            return
        if self._is_open():
            self._start_attempt(*outgoing)

    @property
    def _has_fallback(self) -> bool:
        return self._next < len(self._plan.targets)

    def _fall_back(self, trigger: Trigger | None, *, unsafe: bool = False) -> bool:
        """Send the request to the next target, if there is one for this case.

        `unsafe`: llama-server may have crashed because of the request, so that other servers must
        not get it.
        """
        plan = self._plan
        if trigger not in plan.on:
            return False
        while self._next < len(plan.targets):
            target = plan.targets[self._next]
            self._next += 1
            if unsafe and not isinstance(target, BackendModel):
                continue
            self._timer.stop()
            self._host.on_fallback(self, target, trigger)
            self.model = target
            self._try_model()
            return True
        return False

    # Attempts.

    def _start_attempt(self, pool: Pool, head: bytes, parts: Sequence[bytes]) -> None:
        """Send this head and the parts of a body over a connection of `pool`."""
        self._pool = pool
        self._head = head
        self._parts = parts
        connection = pool.acquire()
        if connection:
            self._send(connection)
        else:
            self._host.spawn(self._connect())

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
                failure = error
            if not self._is_open():
                break
            # A fallback is better than to wait for the same timeout once more.
            timed_out = isinstance(failure, TimeoutError) and self._has_fallback
            if not self._may_retry or timed_out:
                self._record(0)
                self._fail(unreachable(self.model, failure), Outcome.FAILED, "Failed")
                break
            self._retry()
            await asyncio.sleep(RECONNECT_SECONDS)
        return None

    def _is_open(self) -> bool:
        # A function: type checkers assume that an attribute does not change in an await.
        return not self._ended

    def _retry(self) -> None:
        self._may_retry = False
        self.retried = True
        self._host.on_retry(self)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        exchange = self.exchange
        self._settled = not connection.reused
        if self._settled:
            self._timer.start(self._first_byte_seconds, self._on_timeout)
        else:
            self._timer.start(STALE_SECONDS, self._on_settled)
        exchange.on_backpressure = connection.pause
        if exchange.paused:
            connection.pause(True)
        connection.send(
            self._head,
            self._parts,
            self,
            to_head=exchange.request.method == b"HEAD",
            on_sent=self._on_sent,
        )

    @property
    def _first_byte_seconds(self) -> float:
        model = self.model
        seconds = model.backend.first_byte_seconds if isinstance(model, BackendModel) else None
        return seconds or self._timeouts.first_byte

    def _on_sent(self) -> None:
        self._body_sent = True
        self._release_sent_body()

    def _on_settled(self) -> None:
        self._settled = True
        self._timer.start(max(0.0, self._first_byte_seconds - STALE_SECONDS), self._on_timeout)
        self._release_sent_body()

    def _release_sent_body(self) -> None:
        if self._body_sent and self._settled and not self._ended and not self._has_fallback:
            self._release_body()

    def _release_body(self) -> None:
        self._parts = ()
        self.exchange.release_body()

    def _on_timeout(self) -> None:
        self._abort_connection()
        if self.exchange.status:
            self._abort_response()
            return
        self._record(0)
        if self._error is not None:
            self._fail(incomplete_error(self.model), Outcome.FAILED, "Failed")
        else:
            error = no_response(self.model, self._first_byte_seconds)
            self._fail(error, Outcome.TIMED_OUT, "Timeout")

    def _record(self, status: int) -> None:
        """Record the status of an external backend's response; 0: there was none."""
        if isinstance(self.model, BackendModel):
            self._host.backends.record(self.model.server, status)

    # Ends.

    def _abort_connection(self) -> None:
        connection = self._connection
        self._connection = None
        if connection:
            # A balancer notices a closed connection, and only then frees the slot.
            connection.abort()

    def _fail(
        self,
        error: HttpError,
        outcome: Outcome,
        trigger: Trigger | None,
        *,
        unsafe: bool = False,
    ) -> None:
        """Fall back to the next target, or respond with an error."""
        if not self._fall_back(trigger, unsafe=unsafe):
            self._respond_with_error(error, outcome)

    def _respond_with_error(self, error: HttpError, outcome: Outcome) -> None:
        self.stats.error_code = error.code
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
        # Otherwise only the garbage collector frees objects that refer to each other.
        self._release_body()
        self._host.on_released(self)

    # Receiver of the response: callbacks of the upstream connection.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Pass the head on, or keep that of an error response."""
        model = self.model
        if isinstance(model, BackendModel):
            self._record(head.status)
            rejection = responses.rejection(model.server, head)
            if rejection:
                self._abort_connection()
                self._fail(rejection, Outcome.FAILED, "Failed")
                return
            if head.status >= 400:
                self._keep_error(head)
                return
            head = responses.filtered(head)
        elif head.status >= 429 and self._has_fallback:
            self._keep_error(head)
            return
        exchange = self.exchange
        self._timer.start(self._timeouts.idle, self._on_timeout)
        self._release_body()
        added = self._host.cors.allow_origin_headers(exchange.request)
        if self._plan.reports_model:
            added = [*added, served_header(model)]
        self._output.begin(head, framing, added, more=more)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Pass a piece of the body on."""
        if self._error is not None:
            if not self._error.append(framing.payload()):
                self._abort_connection()
                self._fail(not_passed_on(self.model), Outcome.FAILED, "Failed")
            return
        stats = self.stats
        if stats.first_byte_at is None:
            stats.first_byte_at = self._host.now()
        stats.sent_bytes += len(data)
        output = self._output
        output.write(data if output.unchanged else framing.payload())
        stats.edges.append(data)
        self._timer.start(self._timeouts.idle, self._on_timeout)

    def on_end(self) -> None:
        """End the response."""
        self._connection = None
        if self._error is not None:
            self._on_error_response(self._error)
            return
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
        if not (began or self._settled) and self._may_retry:
            self._timer.stop()
            self._retry()
            # Further kept connections may be closed as well.
            self._host.spawn(self._connect())
        elif self.exchange.status:
            self._abort_response()
        else:
            self._record(0)
            is_server = isinstance(self.model, Model)
            self._fail(lost(self.model, reason), Outcome.FAILED, "Failed", unsafe=is_server)

    # Error responses that are kept until they are complete.

    def _keep_error(self, head: ResponseHead) -> None:
        self._error = ErrorBody(head)
        self._timer.start(ERROR_SECONDS, self._on_timeout)

    def _on_error_response(self, error: ErrorBody) -> None:
        model = self.model
        if isinstance(model, BackendModel):
            trigger, unsafe = responses.trigger(error.head.status), False
            secret = self._host.backends.secrets.key(model.backend)
            response = responses.error_response(error.head, error.body, secret)
        else:
            trigger, unsafe = server_trigger(error.head.status, error.body)
            response = whole_response(error.head, error.body)
        if self._fall_back(trigger, unsafe=unsafe):
            return
        if response is None:
            self._respond_with_error(not_passed_on(model), Outcome.FAILED)
            return
        if self._plan.reports_model:
            response.headers.append(served_header(model))
        self.stats.sent_bytes = len(response.body)
        self._release()
        self._host.cors.respond(self.exchange, response)
        self._host.on_finished(self, Outcome.COMPLETED)
