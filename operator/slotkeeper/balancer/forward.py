"""One request on its way to a replica and back; its slot comes back whatever happens."""

from typing import TYPE_CHECKING

from slotkeeper.balancer import answers
from slotkeeper.balancer.policy import Claim, Ticket
from slotkeeper.wire.client import Pool, Upstream
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead, request_bytes, response_bytes

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy import Proxy

_MAX_TRIES = 3
_SETTLE_SECONDS = 0.02
_SETTLE_BYTES_PER_SECOND = 5e6  # llama-server cuts a prompt into tokens before it takes a slot


class Forward:
    """A request that is passed on; the Receiver of its response."""

    __slots__ = (
        "_connection",
        "_head",
        "_needs_slot",
        "_proxy",
        "_raw",
        "_reset",
        "arrived",
        "claim",
        "claimed_at",
        "exchange",
        "first_at",
        "hit",
        "position",
        "received",
        "replica",
        "sent",
        "ticket",
    )

    def __init__(
        self, proxy: "Proxy", exchange: Exchange, *, needs_slot: bool, arrived: float
    ) -> None:
        self.exchange = exchange
        self.arrived = arrived
        self.claimed_at: float | None = None
        self.first_at: float | None = None
        """When the first byte of the answer's body came."""
        self.position = 0
        """Its place in the queue when it came, 1 for the next one; 0: a slot was free."""
        self.replica = ""
        self.hit: bool | None = None
        """The replica's cache knew the beginning of the prompt; None: it is short, or not sent."""
        self.received = exchange.request.size
        """Bytes of the request's body."""
        self.sent = 0
        """Bytes of the answer's body."""
        self.ticket: Ticket[Forward]
        self.claim: Claim[Forward] | None = None
        self._proxy = proxy
        self._needs_slot = needs_slot
        self._connection: Upstream | None = None
        self._head: tuple[int, bytes] | None = None
        self._raw = True
        self._reset = False

    def start(self, claim: Claim["Forward"]) -> None:
        """A slot is there: send the request."""
        self.claim = claim
        self.claimed_at = claim.at
        self.replica = claim.replica.name
        self.hit = claim.hit
        pool = self._proxy.replicas.pool(self.replica)
        connection = pool.take()
        if connection:
            self._send(connection)
        else:
            self._proxy.spawn(self._connect(pool, claim))

    def gone(self) -> None:
        """The client went away."""
        claim, connection = self.claim, self._connection
        self.claim = self._connection = None
        if claim is None:
            self._proxy.dispatcher.withdraw(self.ticket)
        elif connection is None:
            self._proxy.dispatcher.finish(claim, self._proxy.now())
        else:
            # Closing is how llama-server learns that nobody waits; the slot is free when it has.
            connection.abort()
            self._proxy.replicas.abandon(claim)
        self._over("gone")

    def refuse(self, refusal: Refusal, outcome: str) -> None:
        """Answer without a replica."""
        self.exchange.refuse(refusal)
        self._over(outcome)

    def cut(self) -> None:
        """End it in the middle."""
        self.gone()
        self.exchange.cut(reset=True)

    # What the response's connection calls.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """The replica answers: from here on there is no other try."""
        exchange = self.exchange
        if self.claim and self._needs_slot:
            self.claim.settled_at = self._proxy.now()
        exchange.release_body()
        # An HTTP/1.0 client knows no chunks: it gets their content, ended by the connection's end.
        self._raw = exchange.request.http11 or not framing.chunked
        self._reset = framing.until_close or not self._raw
        connection = exchange.connection_header(closing=self._reset)
        chunked = framing.chunked and self._raw
        waited = (self.claimed_at or self.arrived) - self.arrived
        added = [
            (b"X-Slotkeeper-Queue-Position", b"%d" % self.position),
            (b"X-Slotkeeper-Wait-Seconds", b"%.3f" % waited),
        ]
        data = response_bytes(head, chunked=chunked, connection=connection, added=added)
        if more:
            self._head = head.status, data
        else:
            exchange.begin(head.status, data)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """A piece of the answer."""
        if self.first_at is None:
            self.first_at = self._proxy.now()
        self.sent += len(data)
        self._write(data if self._raw else framing.payload())

    def on_end(self) -> None:
        """The answer is complete, and llama-server has freed its slot in the same step."""
        claim, self.claim, self._connection = self.claim, None, None
        if claim:
            self._proxy.dispatcher.finish(claim, self._proxy.now())
        self._write(b"")
        self.exchange.end()
        self._over("answered")

    def on_lost(self, reason: str, *, began: bool) -> None:
        """The replica's connection is lost."""
        connection, self._connection = self._connection, None
        claim = self.claim
        if claim is None or connection is None:
            return
        if not began:
            if connection.reused:
                # Its keep-alive time was over while the request was on its way.
                pool = self._proxy.replicas.pool(self.replica)
                self._proxy.spawn(self._connect(pool, claim))
            else:
                self._try_elsewhere(claim, reason, sent=True)
            return
        self.claim = None
        self._proxy.replicas.abandon(claim)
        if self.exchange.status:
            self.exchange.cut(reset=self._reset)
            self._over("cut")
        else:
            self.refuse(answers.replica_failed(reason), "failed")

    def _write(self, data: bytes) -> None:
        if self._head:
            # One packet for the head and the first of the body where they came as one.
            (status, head), self._head = self._head, None
            self.exchange.begin(status, head + data)
        elif data:
            self.exchange.write(data)

    async def _connect(self, pool: Pool, claim: Claim["Forward"]) -> None:
        try:
            connection = await pool.connect()
        except OSError as error:
            if self.claim is claim:
                self._try_elsewhere(claim, str(error) or "it did not connect in time", sent=False)
            return
        if self.claim is claim:
            self._send(connection)
        else:
            pool.give_back(connection)

    def _send(self, connection: Upstream) -> None:
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        if self.claim and self._needs_slot:
            tokenizing = request.size / _SETTLE_BYTES_PER_SECOND
            self.claim.settled_at = self._proxy.now() + _SETTLE_SECONDS + tokenizing
        exchange.on_pause = connection.pause
        if exchange.paused:
            connection.pause(True)
        connection.send(request_bytes(request), request.parts, self)

    def _try_elsewhere(self, claim: Claim["Forward"], reason: str, *, sent: bool) -> None:
        proxy = self._proxy
        self.claim = None
        proxy.replicas.set_aside(claim.replica.name, reason)
        if sent:
            proxy.replicas.abandon(claim)
        else:
            proxy.dispatcher.finish(claim, proxy.now())
        if self.ticket.tries >= _MAX_TRIES:
            self.refuse(answers.replica_failed(reason), "failed")
            return
        proxy.metrics.retries.inc()
        proxy.dispatcher.requeue(self.ticket)
        proxy.pump()

    def _over(self, outcome: str) -> None:
        self.exchange.on_gone = self.exchange.on_pause = None
        self._proxy.over(self, outcome)
