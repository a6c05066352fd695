"""One request: its attempts at upstreams, and the response that passes through."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from slotkeeper.balancer.prompts.context import Restored
from slotkeeper.balancer.proxy.retry import FailedAttempt
from slotkeeper.edge import cors
from slotkeeper.edge.early_response import EarlySseResponse
from slotkeeper.edge.error_format import error_response
from slotkeeper.edge.fingerprint import fingerprint
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.pass_through import PassThrough
from slotkeeper.edge.routes import LOCAL, Route
from slotkeeper.edge.usage import BodyEdges
from slotkeeper.edge.wait_headers import wait_headers
from slotkeeper.llamacpp.tasks import ONE_TASK, Tasks
from slotkeeper.scheduling import PrefixHashes, QueuedRequest, SlotReservation
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Headers, Response, ResponseHead

_VISIBLE_SECONDS = 0.1
"""From sending a small request until llama-server's /slots counts it, on a busy node; usually it
takes a millisecond. If it took longer than this, a request that is aborted before it has begun,
or that a leader leaves to the next one, would look completed, and its slot would be used twice."""
_TOKENIZED_BYTES_PER_SECOND = 5e6
"""llama-server tokenizes a prompt before it occupies a slot."""


class RequestHost(Protocol):
    """What a request reports to. The host keeps the slots and decides what follows a failure."""

    @property
    def now(self) -> Callable[[], float]:
        """The event loop's clock, in seconds."""

    @property
    def on_accepted(self) -> Callable[["ProxiedRequest"], None]:
        """Called when a replica responds without an error, while the request still has its body."""

    def on_completed(self, reservation: SlotReservation["ProxiedRequest"]) -> None:
        """Free the slot: the replica has sent its whole response, and frees it in the same step."""

    def on_released(
        self, reservation: SlotReservation["ProxiedRequest"], *, occupied: bool
    ) -> None:
        """Free the slot, once llama-server has if it may be `occupied` there."""

    def on_upstream_failure(self, request: "ProxiedRequest", attempt: FailedAttempt) -> None:
        """Continue after a failed attempt, whose slot the request still holds."""

    def on_finished(self, request: "ProxiedRequest", outcome: Outcome) -> None:
        """Forget the request: its client has been served or has disconnected."""


@dataclass(slots=True)
class RequestStats:
    """Measurements of one request, for the access log and the metrics.

    Times are seconds of the event loop's clock.
    """

    arrived_at: float
    received_bytes: int
    """Of the request's body."""
    dispatched_at: float | None = None
    """When its slot was reserved, or it was relayed to the leader; None while it is queued."""
    rejected_at: float | None = None
    """When its error response was sent, if it got no slot."""
    first_byte_at: float | None = None
    """When the first byte of the response's body arrived."""
    sent_bytes: int = 0
    """Of the response's body."""
    error_code: str | None = None
    """Of the balancer's own error response."""
    queue_position: int = 0
    """On arrival: 1 for the head of the queue, 0 if a slot was free."""
    upstream: str = ""
    """The last replica, or leader, that it was assigned to."""
    prefix_hit: bool | None = None
    """Whether the replica's cache held a prefix of the prompt; None: too short, or not sent."""
    restored: Restored | None = None
    """The prompt file that was restored for it, by its last attempt."""
    edges: BodyEdges = field(default_factory=BodyEdges)
    """The first and last bytes of the response's body, which contain the token counts."""


class ProxiedRequest:
    """A request for a replica, and the Receiver of its response.

    It is either queued or assigned to an upstream. Once assigned, it is sent as soon as there is a
    connection.
    """

    # fmt: off
    __slots__ = (
        "_connection",
        "_failed",
        "_failed_relays",
        "_fingerprint",
        "_host",
        "_output",
        "_resending",
        "_response_started",
        "early",
        "exchange",
        "is_stream",
        "key_name",
        "local_route",
        "loop_delayed",
        "needs_slot",
        "pool",
        "preemptible",
        "prefixes",
        "proof",
        "queued",
        "relayed",
        "reservation",
        "stats",
        "tasks",
        "uses_restored_slot",
    )
    # fmt: on

    def __init__(
        self,
        host: RequestHost,
        exchange: Exchange,
        route: Route,
        *,
        key_name: str | None,
        arrived: float,
    ) -> None:
        self.exchange = exchange
        self.stats = RequestStats(arrived, exchange.request.size)
        self.key_name = key_name
        """The name of its API key."""
        self.needs_slot = route is Route.INFERENCE
        """It occupies a slot in llama-server."""
        self.local_route = None if self.needs_slot or route not in LOCAL else route
        """Its route if the balancer can respond to it without the leader."""
        self.tasks: Tasks = ONE_TASK
        """Its tasks in llama-server, each of which needs a slot."""
        self.prefixes: PrefixHashes = ()
        """Hashes of its prompt's prefixes; none of a short one, or if none of them matter."""
        self.uses_restored_slot = True
        """llama-server would find its prompt in the slot of a restored file."""
        self.preemptible = False
        """It makes way for others."""
        self.is_stream = False
        """It is for a stream; only known of a preemptible one. llama-server notices that a client
        has disconnected when it sends the next token, and processes other requests to their end."""
        self.queued: QueuedRequest[ProxiedRequest]
        self.reservation: SlotReservation[ProxiedRequest] | None = None
        self.relayed = False
        """It is assigned to the leader, which reserves its slot."""
        self.proof = b""
        """This balancer's proof for the leader that it is assigned to."""
        self.pool: Pool | None = None
        """Connections of the upstream that it is assigned to; None while it is queued."""
        self.early: EarlySseResponse | None = None
        """The response, if it began while the request was queued."""
        self.loop_delayed = False
        """It was relayed in a circle, and has been delayed for that."""
        self._host = host
        self._connection: UpstreamConnection | None = None
        self._response_started = False
        self._failed = False
        self._failed_relays = 0
        self._fingerprint: int | None = None
        self._resending = False
        self._output = PassThrough(exchange)

    @property
    def queue_seconds(self) -> float:
        """Seconds from its arrival to its slot, or until now."""
        stats = self.stats
        until = stats.rejected_at if stats.dispatched_at is None else stats.dispatched_at
        return (self._host.now() if until is None else until) - stats.arrived_at

    @property
    def fingerprint(self) -> int:
        """Equal for identical requests; see edge/fingerprint.py."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.exchange.request)
        return self._fingerprint

    @property
    def response_started(self) -> bool:
        """Whether the head of a replica's response has arrived."""
        return self._response_started

    def is_running_on(self, replica: str) -> bool:
        """Whether it was sent to this replica, and its response is not complete."""
        return (
            (self._connection is not None or self._resending)
            and self.reservation is not None
            and self.reservation.replica.name == replica
        )

    def is_visible(self, now: float) -> bool:
        """Whether llama-server's /slots counts it, or it is not to be counted."""
        return not (self.reservation and self.needs_slot) or self.reservation.visible_at <= now

    # Attempts.

    def assign_replica(self, reservation: SlotReservation["ProxiedRequest"], pool: Pool) -> None:
        """Begin an attempt at a replica."""
        self.reservation = reservation
        self.pool = pool
        stats = self.stats
        stats.dispatched_at = reservation.reserved_at
        stats.upstream = reservation.replica.name
        stats.prefix_hit = reservation.prefix_hit
        stats.restored = None

    def assign_leader(self, address: str, proof: bytes, pool: Pool) -> None:
        """Begin an attempt at the leader, HOST:PORT."""
        self.relayed = True
        self.proof = proof
        self.pool = pool
        self.stats.dispatched_at = self._host.now()
        self.stats.upstream = address

    def send(self, connection: UpstreamConnection, head: bytes) -> None:
        """Send the request, with this encoded head, over a connection of the assigned upstream."""
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        if self.reservation and self.needs_slot:
            tokenizing = request.size / _TOKENIZED_BYTES_PER_SECOND
            self.reservation.set_visible(self._host.now() + _VISIBLE_SECONDS + tokenizing)
        exchange.on_backpressure = connection.pause
        if exchange.paused:
            connection.pause(True)
        connection.send(head, request.parts, self, to_head=request.method == b"HEAD")

    def detach(self) -> SlotReservation["ProxiedRequest"] | None:
        """End the attempt; return the slot that it held."""
        reservation = self.reservation
        self.reservation = self.pool = self._connection = None
        self._resending = False
        return reservation

    def return_to_queue(self) -> None:
        """Note that the request is queued again, after `detach`."""
        self.relayed = False
        self.stats.dispatched_at = None

    def record_failure(
        self,
        reason: str,
        *,
        sent: bool,
        began: bool = False,
        stale: bool = False,
    ) -> FailedAttempt:
        """Count and describe a failure of the current attempt."""
        # A kept connection closed, and there is no other: the replica may have crashed on it.
        sent = sent or self._resending
        self._resending = stale and not self.relayed
        if self.relayed and sent and not stale:
            self._failed_relays += 1
        return FailedAttempt(
            reason=reason,
            relayed=self.relayed,
            sent=sent,
            attempts=self._failed_relays if self.relayed else self.queued.attempts,
            local=self.local_route is not None,
            began=began,
            stale=stale,
            malformed=self._connection is not None and self._connection.malformed,
            partial=self._is_partial,
        )

    # Ends.

    def on_client_disconnect(self) -> None:
        """End the attempt: the client has closed its connection."""
        self._end_attempt()
        self._finish(Outcome.CLIENT_DISCONNECTED)

    def preempt(self, error: HttpError) -> None:
        """End the request, queued or running: others need its place.

        The client gets the error, unless it has a part of the response.
        """
        self._end_attempt()
        if self._is_partial:
            self.stats.error_code = error.code
            self.abort_response(Outcome.PREEMPTED)
        else:
            self.respond_with_error(error, Outcome.PREEMPTED)

    def on_leader_lost(self) -> None:
        """Fail the attempt at a leader that no longer responds, unless the response has begun."""
        connection = self._connection
        if self.pool is None or self._response_started:
            return
        attempt = self.record_failure("leader does not respond", sent=connection is not None)
        if connection:
            self._connection = None
            connection.abort()
        self._host.on_upstream_failure(self, attempt)

    def give_up(self) -> SlotReservation["ProxiedRequest"] | None:
        """End the attempt and close its connection; return the slot that it held."""
        connection = self._connection
        reservation = self.detach()
        if connection:
            connection.abort()
        return reservation

    def respond(self, response: Response) -> None:
        """Send a response of the balancer's own."""
        cors.ANY_ORIGIN.respond(self.exchange, response)
        self._finish(Outcome.COMPLETED)

    def respond_with_error(self, error: HttpError, outcome: Outcome) -> None:
        """Send an error response, within the stream if that has begun."""
        self.stats.error_code = error.code
        # The header and the logs have the same queue time.
        self.stats.rejected_at = self._host.now()
        if self.early:
            self.early.end_with_error(error)
        else:
            waited = wait_headers(self.queue_seconds, self.stats.queue_position)
            error.headers = (*error.headers, *waited)
            response = error_response(error, self.exchange.request.path)
            self.stats.sent_bytes += len(response.body)
            cors.ANY_ORIGIN.respond(self.exchange, response)
        self._finish(outcome)

    def abort_response(self, outcome: Outcome = Outcome.ABORTED) -> None:
        """Close the client's connection in the middle of the response."""
        self.exchange.abort(reset=self._output.close_ends_body)
        self._finish(outcome)

    def abort(self) -> None:
        """End the request, whatever its state: the balancer shuts down."""
        self.on_client_disconnect()
        self.exchange.abort(reset=True)

    def _end_attempt(self) -> None:
        sent = self._connection is not None
        if sent and self.reservation:
            _ = self.fingerprint  # while there is a body
        if reservation := self.give_up():
            # llama-server notices a closed connection, and only then stops and frees the slot.
            self._host.on_released(reservation, occupied=sent and self.needs_slot)

    @property
    def _is_partial(self) -> bool:
        """Whether the client has a part of the response."""
        return self.early.streams if self.early else bool(self.exchange.status)

    def _finish(self, outcome: Outcome) -> None:
        self.exchange.on_disconnect = self.exchange.on_backpressure = None
        # This object and `queued` refer to each other: only the garbage collector frees them.
        self.exchange.release_body()
        self._host.on_finished(self, outcome)

    # Receiver of the response: callbacks of the upstream connection.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Pass the head on. From here on there is no further attempt."""
        exchange = self.exchange
        self._response_started = True
        self._failed = head.status >= 400
        if self.reservation:
            _ = self.fingerprint  # while there is a body
            self.reservation.began = True
            if self.needs_slot:
                self.reservation.set_visible(self._host.now())
            if not self._failed:
                self._host.on_accepted(self)
        exchange.release_body()
        if self.early:
            self._output.unchanged = self.early.on_head(head, framing)
            return
        added = [] if self.relayed else self._queue_headers()
        self._output.begin(head, framing, added, more=more)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Pass a piece of the body on."""
        if self.stats.first_byte_at is None:
            self.stats.first_byte_at = self._host.now()
        self.stats.sent_bytes += len(data)
        output = self._output
        output.write(data if output.unchanged else self._reframed(framing.payload()))
        self.stats.edges.append(data)

    def on_end(self) -> None:
        """End the response."""
        reservation = self.reservation
        self.reservation = self.pool = self._connection = None
        if reservation:
            # Before the exchange ends: the next pipelined request may get the slot.
            if self._failed and reservation.further:
                # One task failed. llama-server responds before it has stopped the others.
                self._host.on_released(reservation, occupied=self.needs_slot)
            else:
                self._host.on_completed(reservation)
        output = self._output
        output.write(self.early.end() if self.early and not output.unchanged else b"")
        self.exchange.end()
        self._finish(Outcome.COMPLETED)

    def on_lost(self, reason: str, *, began: bool) -> None:
        """Report the failed attempt."""
        connection = self._connection
        if connection is None:
            return
        stale = connection.reused and not began
        attempt = self.record_failure(reason, sent=True, began=began, stale=stale)
        self._connection = None
        self._host.on_upstream_failure(self, attempt)

    def _reframed(self, payload: bytes) -> bytes:
        return self.early.body(payload) if self.early else payload

    def _queue_headers(self) -> Headers:
        waited = wait_headers(self.queue_seconds, self.stats.queue_position)
        return [*waited, *cors.expose_headers(self.exchange.request)]
