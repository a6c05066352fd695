"""One request on its way to a replica and back; its slot comes back whatever happens."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slotkeeper.balancer import responses
from slotkeeper.balancer.proxy.relay import (
    LOOP_DELAY_SECONDS,
    OWN_HEADERS,
    encode_relayed_head,
    is_looping,
)
from slotkeeper.edge import cors
from slotkeeper.edge.early_response import EarlySseResponse
from slotkeeper.edge.routes import Route
from slotkeeper.edge.usage import BodyEdges
from slotkeeper.edge.wait_headers import waiting_headers
from slotkeeper.scheduling import QueuedRequest, SlotReservation
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Headers, ResponseHead, encode_request_head, encode_response_head

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.proxy import Proxy

STRIPPED_HEADERS = OWN_HEADERS | {b"x-conversation-id"}
"""Headers that are never for a llama-server. With a conversation's id it would go on decoding after
its client has gone, and end what another client runs under the same id."""
_MAX_TRIES = 3
_MAX_RELAYS = 10
_SETTLE_SECONDS = 0.02
_SETTLE_BYTES_PER_SECOND = 5e6  # llama-server cuts a prompt into tokens before it takes a slot


@dataclass(slots=True)
class RequestStats:
    """What is measured of one request, for the access log and the metrics.

    Times are seconds of the event loop's clock.
    """

    arrived_at: float
    received_bytes: int
    """Of the request's body."""
    dispatched_at: float | None = None
    """When it got a slot, or was sent to the leader; None while it is queued."""
    first_byte_at: float | None = None
    """When the first byte of the response's body came."""
    sent_bytes: int = 0
    """Of the response's body."""
    queue_position: int = 0
    """On arrival: 1 for the next one, 0 where a slot was free."""
    upstream: str = ""
    """Where it was sent last: a replica, or the leader."""
    prefix_hit: bool | None = None
    """Whether the replica's cache held a prefix of the prompt; None: too short, or not sent."""
    edges: BodyEdges = field(default_factory=BodyEdges)
    """The first and last bytes of the response's body, which hold the token counts."""


class ProxiedRequest:
    """A request that is passed on; the Receiver of its response."""

    # fmt: off
    __slots__ = (
        "_close_ends_body",
        "_connection",
        "_head",
        "_loop_delay_done",
        "_needs_slot",
        "_passthrough",
        "_pool",
        "_proxy",
        "_relays",
        "_response_started",
        "early",
        "exchange",
        "key",
        "own",
        "queued",
        "relayed",
        "reservation",
        "stats",
    )
    # fmt: on

    def __init__(
        self, proxy: "Proxy", exchange: Exchange, *, needs_slot: bool, arrived: float
    ) -> None:
        self.exchange = exchange
        self.stats = RequestStats(arrived, exchange.request.size)
        self.key: str | None = None
        """The name of its API key."""
        self.own: Route | None = None
        """Our own route that is asked for, where the leader is asked first."""
        self.relayed = False
        """It was sent to the leader, which reserves its slot."""
        self.early: EarlySseResponse | None = None
        """The response, if it began while the request was queued."""
        self.queued: QueuedRequest[ProxiedRequest]
        self.reservation: SlotReservation[ProxiedRequest] | None = None
        self._proxy = proxy
        self._needs_slot = needs_slot
        self._pool: Pool | None = None  # of whom it is sent to; None: of nobody at the moment
        self._connection: UpstreamConnection | None = None
        self._response_started = False
        self._loop_delay_done = False
        self._relays = 0  # that failed
        self._head: tuple[int, bytes] | None = None
        self._passthrough = True
        self._close_ends_body = False

    def send_to_replica(self, claim: SlotReservation["ProxiedRequest"]) -> None:
        """A slot is there: send the request."""
        self._proxy.keepalive.discard(self)
        self.reservation = claim
        self.stats.dispatched_at = claim.reserved_at
        self.stats.upstream = claim.replica.name
        self.stats.prefix_hit = claim.prefix_hit
        self._acquire_connection(self._proxy.replicas.pool(self.stats.upstream))

    def send_to_leader(self, peer: str, pool: Pool) -> None:
        """Another balancer hands out the slots: send the request there."""
        self._proxy.keepalive.discard(self)
        self.relayed = True
        self.stats.dispatched_at = self._proxy.now()
        self.stats.upstream = peer
        if self._loop_delay_done or not is_looping(self.exchange.request):
            self._acquire_connection(pool)
            return
        self._pool = pool
        self._proxy.spawn(self._delay_then_requeue(pool))

    def is_visible(self, now: float) -> bool:
        """llama-server's /slots counts it, or has no reason to."""
        return not (self.reservation and self._needs_slot) or self.reservation.visible_at <= now

    def on_client_disconnect(self) -> None:
        """The client went away."""
        claim = self.reservation
        connection = self._connection
        pool = self._pool
        self.reservation = self._connection = self._pool = None
        if pool is None:
            self._proxy.dispatcher.cancel(self.queued)
        elif connection:
            # Closing is how llama-server learns that nobody waits; the slot is free when it has.
            connection.abort()
        if claim:
            self._release_slot(claim, sent=connection is not None)
        self._finish("client_disconnected")

    def peer_lost(self) -> None:
        """The balancer that it was relayed to is gone. Another try, unless the answer began."""
        connection = self._connection
        if self._pool is None or self._response_started:
            return
        self._connection = None
        if connection:
            connection.abort()
        self._on_upstream_failure("it does not answer", sent=connection is not None)

    def respond_with_error(self, refusal: HttpError, outcome: str) -> None:
        """Answer without a replica."""
        if self.early:
            self.early.end_with_error(refusal)
        else:
            told = waiting_headers(self.queue_seconds, self.stats.queue_position)
            refusal.headers = (*refusal.headers, *told)
            cors.respond_with_error(self.exchange, refusal)
        self._finish(outcome)

    @property
    def queue_seconds(self) -> float:
        """Seconds from its arrival to its slot, or till now."""
        until = self._proxy.now() if self.stats.dispatched_at is None else self.stats.dispatched_at
        return until - self.stats.arrived_at

    def abort(self) -> None:
        """End it in the middle."""
        self.on_client_disconnect()
        self.exchange.abort(reset=True)

    # What the response's connection calls.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """The replica answers: from here on there is no other try."""
        exchange = self.exchange
        self._response_started = True
        if self.reservation and self._needs_slot:
            self.reservation.visible_at = self._proxy.now()
        exchange.release_body()
        if self.early:
            self._passthrough = self.early.on_head(head, framing)
            return
        # An HTTP/1.0 client knows no chunks: it gets their content, ended by the connection's end.
        self._passthrough = exchange.request.http11 or not framing.chunked
        self._close_ends_body = framing.until_close or not self._passthrough
        connection = exchange.connection_header(closing=self._close_ends_body)
        chunked = framing.chunked and self._passthrough
        added = [] if self.relayed else self._queue_headers()
        data = encode_response_head(head, chunked=chunked, connection=connection, added=added)
        if more:
            self._head = head.status, data
        else:
            exchange.begin(head.status, data)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """A piece of the answer."""
        if self.stats.first_byte_at is None:
            self.stats.first_byte_at = self._proxy.now()
        self.stats.sent_bytes += len(data)
        self._write(data if self._passthrough else self._reframed(framing.payload()))
        self.stats.edges.append(data)

    def on_end(self) -> None:
        """The answer is complete, and llama-server has freed its slot in the same step."""
        claim = self.reservation
        self.reservation = None
        self._connection = None
        self._pool = None
        if claim:
            self._proxy.replicas.completed(claim.replica.name)
            self._proxy.dispatcher.release(claim, self._proxy.now())
        self._write(self.early.end() if self.early and not self._passthrough else b"")
        self.exchange.end()
        self._finish("completed")

    def on_lost(self, reason: str, *, began: bool) -> None:
        """The replica's connection is lost."""
        connection = self._connection
        self._connection = None
        pool = self._pool
        if pool is None or connection is None:
            return
        if not began:
            if connection.reused:
                # Its keep-alive time was over while the request was on its way.
                self._proxy.spawn(self._connect(pool))
            else:
                self._on_upstream_failure(reason, sent=True)
            return
        claim = self.reservation
        self.reservation = None
        self._pool = None
        if claim:
            fault = (
                UpstreamFailure.PROTOCOL_ERROR if connection.malformed else UpstreamFailure.RESET
            )
            self._proxy.replicas.eject(claim.replica.name, fault, reason)
            self._release_slot(claim, sent=True)
        if self.early.streams if self.early else self.exchange.status:
            self.exchange.abort(reset=self._close_ends_body)
            self._finish("aborted")
        else:
            self.respond_with_error(responses.replica_failed(reason), "failed")

    def _reframed(self, payload: bytes) -> bytes:
        return self.early.body(payload) if self.early else payload

    def _queue_headers(self) -> Headers:
        told = waiting_headers(self.queue_seconds, self.stats.queue_position)
        return [*told, *cors.expose_headers(self.exchange.request)]

    def _write(self, data: bytes) -> None:
        if self._head:
            # One packet for the head and the first of the body where they came as one.
            (status, head) = self._head
            self._head = None
            self.exchange.begin(status, head + data)
        elif data:
            self.exchange.write(data)

    async def _delay_then_requeue(self, pool: Pool) -> None:
        await asyncio.sleep(LOOP_DELAY_SECONDS)
        if self._pool is pool:
            self._pool = None
            self._loop_delay_done = True
            self._requeue()

    def _acquire_connection(self, pool: Pool) -> None:
        self._pool = pool
        connection = pool.acquire()
        if connection:
            self._send(connection)
        else:
            self._proxy.spawn(self._connect(pool))

    async def _connect(self, pool: Pool) -> None:
        try:
            connection = await pool.connect()
        except OSError as error:
            if self._pool is pool:
                self._on_upstream_failure(str(error) or "it did not connect in time", sent=False)
            return
        if self._pool is not pool:
            pool.release(connection)
        elif self.reservation and not self._proxy.is_leader:
            # Whoever leads now has counted the slots without this one.
            pool.release(connection)
            claim = self.reservation
            self.reservation = None
            self._pool = None
            self._release_slot(claim, sent=False)
            self._requeue()
        else:
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        if self.reservation and self._needs_slot:
            tokenizing = request.size / _SETTLE_BYTES_PER_SECOND
            self.reservation.visible_at = self._proxy.now() + _SETTLE_SECONDS + tokenizing
        exchange.on_backpressure = connection.pause
        if exchange.paused:
            connection.pause(True)
        if self.relayed:
            head = encode_relayed_head(request)
        else:
            head = encode_request_head(request, self._proxy.stripped_headers)
        connection.send(head, request.parts, self, to_head=request.method == b"HEAD")

    def _on_upstream_failure(self, reason: str, *, sent: bool) -> None:
        proxy = self._proxy
        claim = self.reservation
        self.reservation = self._pool = None
        if claim is None:
            # In a rollout one balancer after the other ends under it.
            self._relays += sent
            tired = self._relays >= _MAX_RELAYS
            proxy.relay_failed(self.stats.upstream, reason)
        else:
            tired = self.queued.attempts >= _MAX_TRIES
            fault = UpstreamFailure.RESET if sent else UpstreamFailure.REFUSED
            proxy.replicas.eject(claim.replica.name, fault, reason)
            self._release_slot(claim, sent=sent)
        if tired:
            self.respond_with_error(responses.replica_failed(reason), "failed")
            return
        proxy.metrics.retries.inc()
        self._requeue()

    def _requeue(self) -> None:
        proxy = self._proxy
        self.relayed = False
        self.stats.dispatched_at = None
        if self.own:
            # Never in the queue: from there it could go to a replica, whose /slots shows prompts.
            cors.respond(self.exchange, proxy.local_response(self.own))
            self._finish("completed")
            return
        proxy.dispatcher.requeue(self.queued)
        proxy.on_queued(self)
        proxy.dispatch()

    def _release_slot(self, claim: SlotReservation["ProxiedRequest"], *, sent: bool) -> None:
        if sent and self._needs_slot:
            self._proxy.replicas.abort(claim)
        else:
            self._proxy.dispatcher.release(claim, self._proxy.now())

    def _finish(self, outcome: str) -> None:
        self.exchange.on_disconnect = self.exchange.on_backpressure = None
        self._proxy.on_finished(self, outcome)
