"""One request on its way to a replica and back; its slot comes back whatever happens."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slotkeeper.balancer import responses
from slotkeeper.balancer.proxy.relay import CALM_SECONDS, OWN_HEADERS, relayed_bytes, wanders
from slotkeeper.edge import cors
from slotkeeper.edge.early_response import EarlyStream
from slotkeeper.edge.routes import Route
from slotkeeper.edge.usage import Ends
from slotkeeper.edge.wait_headers import waiting_headers
from slotkeeper.scheduling import SlotReservation, QueuedRequest
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.wire.client import Pool, Upstream
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Headers, ResponseHead, request_bytes, response_bytes

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.proxy import Proxy

NOT_PASSED_ON = OWN_HEADERS | {b"x-conversation-id"}
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
    edges: Ends = field(default_factory=Ends)
    """The first and last bytes of the response's body, which hold the token counts."""


class Forward:
    """A request that is passed on; the Receiver of its response."""

    # fmt: off
    __slots__ = (
        "_begun", "_calm", "_connection", "_head", "_needs_slot", "_pool", "_proxy", "_raw",
        "_relays", "_reset", "claim", "early", "exchange", "key", "own", "relayed", "stats",
        "ticket",
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
        self.early: EarlyStream | None = None
        """The response, if it began while the request was queued."""
        self.ticket: QueuedRequest[Forward]
        self.claim: SlotReservation[Forward] | None = None
        self._proxy = proxy
        self._needs_slot = needs_slot
        self._pool: Pool | None = None  # of whom it is sent to; None: of nobody at the moment
        self._connection: Upstream | None = None
        self._begun = False
        self._calm = False
        self._relays = 0  # that failed
        self._head: tuple[int, bytes] | None = None
        self._raw = True
        self._reset = False

    def start(self, claim: SlotReservation["Forward"]) -> None:
        """A slot is there: send the request."""
        self._proxy.heartbeats.discard(self)
        self.claim = claim
        self.stats.dispatched_at = claim.reserved_at
        self.stats.upstream = claim.replica.name
        self.stats.prefix_hit = claim.prefix_hit
        self._go(self._proxy.replicas.pool(self.stats.upstream))

    def relay(self, peer: str, pool: Pool) -> None:
        """Another balancer hands out the slots: send the request there."""
        self._proxy.heartbeats.discard(self)
        self.relayed = True
        self.stats.dispatched_at = self._proxy.now()
        self.stats.upstream = peer
        if self._calm or not wanders(self.exchange.request):
            self._go(pool)
            return
        self._pool = pool
        self._proxy.spawn(self._calm_down(pool))

    def settled(self, now: float) -> bool:
        """llama-server's /slots counts it, or has no reason to."""
        return not (self.claim and self._needs_slot) or self.claim.visible_at <= now

    def gone(self) -> None:
        """The client went away."""
        claim = self.claim
        connection = self._connection
        pool = self._pool
        self.claim = self._connection = self._pool = None
        if pool is None:
            self._proxy.dispatcher.cancel(self.ticket)
        elif connection:
            # Closing is how llama-server learns that nobody waits; the slot is free when it has.
            connection.abort()
        if claim:
            self._let_go(claim, sent=connection is not None)
        self._over("gone")

    def peer_lost(self) -> None:
        """The balancer that it was relayed to is gone. Another try, unless the answer began."""
        connection = self._connection
        if self._pool is None or self._begun:
            return
        self._connection = None
        if connection:
            connection.abort()
        self._try_elsewhere("it does not answer", sent=connection is not None)

    def refuse(self, refusal: Refusal, outcome: str) -> None:
        """Answer without a replica."""
        if self.early:
            self.early.refuse(refusal)
        else:
            told = waiting_headers(self.waited, self.stats.queue_position)
            refusal.headers = (*refusal.headers, *told)
            cors.refuse(self.exchange, refusal)
        self._over(outcome)

    @property
    def waited(self) -> float:
        """Seconds from its arrival to its slot, or till now."""
        until = self._proxy.now() if self.stats.dispatched_at is None else self.stats.dispatched_at
        return until - self.stats.arrived_at

    def cut(self) -> None:
        """End it in the middle."""
        self.gone()
        self.exchange.cut(reset=True)

    # What the response's connection calls.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """The replica answers: from here on there is no other try."""
        exchange = self.exchange
        self._begun = True
        if self.claim and self._needs_slot:
            self.claim.visible_at = self._proxy.now()
        exchange.release_body()
        if self.early:
            self._raw = self.early.on_head(head, framing)
            return
        # An HTTP/1.0 client knows no chunks: it gets their content, ended by the connection's end.
        self._raw = exchange.request.http11 or not framing.chunked
        self._reset = framing.until_close or not self._raw
        connection = exchange.connection_header(closing=self._reset)
        chunked = framing.chunked and self._raw
        added = [] if self.relayed else self._waited()
        data = response_bytes(head, chunked=chunked, connection=connection, added=added)
        if more:
            self._head = head.status, data
        else:
            exchange.begin(head.status, data)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """A piece of the answer."""
        if self.stats.first_byte_at is None:
            self.stats.first_byte_at = self._proxy.now()
        self.stats.sent_bytes += len(data)
        self._write(data if self._raw else self._reframed(framing.payload()))
        self.stats.edges.keep(data)

    def on_end(self) -> None:
        """The answer is complete, and llama-server has freed its slot in the same step."""
        claim = self.claim
        self.claim = None
        self._connection = None
        self._pool = None
        if claim:
            self._proxy.replicas.answered(claim.replica.name)
            self._proxy.dispatcher.release(claim, self._proxy.now())
        self._write(self.early.end() if self.early and not self._raw else b"")
        self.exchange.end()
        self._over("answered")

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
                self._try_elsewhere(reason, sent=True)
            return
        claim = self.claim
        self.claim = None
        self._pool = None
        if claim:
            fault = UpstreamFailure.PROTOCOL_ERROR if connection.garbled else UpstreamFailure.RESET
            self._proxy.replicas.set_aside(claim.replica.name, fault, reason)
            self._let_go(claim, sent=True)
        if self.early.streams if self.early else self.exchange.status:
            self.exchange.cut(reset=self._reset)
            self._over("cut")
        else:
            self.refuse(responses.replica_failed(reason), "failed")

    def _reframed(self, payload: bytes) -> bytes:
        return self.early.body(payload) if self.early else payload

    def _waited(self) -> Headers:
        told = waiting_headers(self.waited, self.stats.queue_position)
        return [*told, *cors.exposed(self.exchange.request)]

    def _write(self, data: bytes) -> None:
        if self._head:
            # One packet for the head and the first of the body where they came as one.
            (status, head) = self._head
            self._head = None
            self.exchange.begin(status, head + data)
        elif data:
            self.exchange.write(data)

    async def _calm_down(self, pool: Pool) -> None:
        await asyncio.sleep(CALM_SECONDS)
        if self._pool is pool:
            self._pool = None
            self._calm = True
            self._again()

    def _go(self, pool: Pool) -> None:
        self._pool = pool
        connection = pool.take()
        if connection:
            self._send(connection)
        else:
            self._proxy.spawn(self._connect(pool))

    async def _connect(self, pool: Pool) -> None:
        try:
            connection = await pool.connect()
        except OSError as error:
            if self._pool is pool:
                self._try_elsewhere(str(error) or "it did not connect in time", sent=False)
            return
        if self._pool is not pool:
            pool.give_back(connection)
        elif self.claim and not self._proxy.leads:
            # Whoever leads now has counted the slots without this one.
            pool.give_back(connection)
            claim = self.claim
            self.claim = None
            self._pool = None
            self._let_go(claim, sent=False)
            self._again()
        else:
            self._send(connection)

    def _send(self, connection: Upstream) -> None:
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        if self.claim and self._needs_slot:
            tokenizing = request.size / _SETTLE_BYTES_PER_SECOND
            self.claim.visible_at = self._proxy.now() + _SETTLE_SECONDS + tokenizing
        exchange.on_pause = connection.pause
        if exchange.paused:
            connection.pause(True)
        if self.relayed:
            head = relayed_bytes(request)
        else:
            head = request_bytes(request, self._proxy.not_passed_on)
        connection.send(head, request.parts, self, to_head=request.method == b"HEAD")

    def _try_elsewhere(self, reason: str, *, sent: bool) -> None:
        proxy = self._proxy
        claim = self.claim
        self.claim = self._pool = None
        if claim is None:
            # In a rollout one balancer after the other ends under it.
            self._relays += sent
            tired = self._relays >= _MAX_RELAYS
            proxy.relay_failed(self.stats.upstream, reason)
        else:
            tired = self.ticket.attempts >= _MAX_TRIES
            fault = UpstreamFailure.RESET if sent else UpstreamFailure.REFUSED
            proxy.replicas.set_aside(claim.replica.name, fault, reason)
            self._let_go(claim, sent=sent)
        if tired:
            self.refuse(responses.replica_failed(reason), "failed")
            return
        proxy.metrics.retries.inc()
        self._again()

    def _again(self) -> None:
        proxy = self._proxy
        self.relayed = False
        self.stats.dispatched_at = None
        if self.own:
            # Never in the queue: from there it could go to a replica, whose /slots shows prompts.
            cors.answer(self.exchange, proxy.own(self.own))
            self._over("answered")
            return
        proxy.dispatcher.requeue(self.ticket)
        proxy.wait(self)
        proxy.pump()

    def _let_go(self, claim: SlotReservation["Forward"], *, sent: bool) -> None:
        if sent and self._needs_slot:
            self._proxy.replicas.abandon(claim)
        else:
            self._proxy.dispatcher.release(claim, self._proxy.now())

    def _over(self, outcome: str) -> None:
        self.exchange.on_gone = self.exchange.on_pause = None
        self._proxy.over(self, outcome)
