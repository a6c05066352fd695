"""The proxy: clients on one side, the dispatcher in the middle, replicas on the other side."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.balancer import responses
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.local_responses import LocalResponses, Model
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.balancer.prompts.context import DEFAULT_TIMINGS, PromptTimings
from slotkeeper.balancer.prompts.prompt_files import PromptFiles
from slotkeeper.balancer.proxy import relay, retry
from slotkeeper.balancer.proxy.crash_guard import CrashGuard
from slotkeeper.balancer.proxy.inspection import RequestInspection
from slotkeeper.balancer.proxy.keepalive import SseKeepalive
from slotkeeper.balancer.proxy.local_routes import LocalRoutes
from slotkeeper.balancer.proxy.preemptor import Preemptor
from slotkeeper.balancer.proxy.prompt_restores import PromptRestores
from slotkeeper.balancer.proxy.relay_verification import RelayVerification
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.proxy.request_log import RequestLog
from slotkeeper.balancer.proxy.sender import Sender
from slotkeeper.balancer.proxy.stall_monitor import StallMonitor
from slotkeeper.balancer.upstream.aggregate import Aggregate
from slotkeeper.balancer.upstream.replicas import ReplicaSet, ReplicaTimeouts
from slotkeeper.balancer.upstream.speculation import Speculation
from slotkeeper.edge import cors
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.body_admission import BodyAdmission
from slotkeeper.edge.drain import wait_idle
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.routes import LOCAL, Route
from slotkeeper.scheduling import (
    DemandStatistics,
    Dispatcher,
    FlowKey,
    QueueFull,
    SlotReservation,
)
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.reentry import Reentry
from slotkeeper.wire.tasks import Tasks
from slotkeeper.wire.timer import Timer


class Proxy:
    """Handles every request of the clients' port. Everything happens in the event loop.

    `slots`: of each replica, or None to read its /slots.
    """

    prompts: PromptRestores | None = None
    priming: Priming | None = None
    speculation: Speculation | None = None

    def __init__(
        self,
        dispatcher: Dispatcher[ProxiedRequest],
        access: RequestAccess,
        log: AccessLog,
        model: Model,
        *,
        slots: int | None = None,
        timeouts: ReplicaTimeouts | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self._loop.time
        """The event loop's clock, in seconds."""
        self._tasks = Tasks()
        self.spawn = self._tasks.spawn
        self.dispatcher = dispatcher
        self.metrics = metrics = Metrics(dispatcher)
        self.demand = DemandStatistics()
        self.replicas = ReplicaSet(
            dispatcher, metrics, self.dispatch, slots=slots, timeouts=timeouts
        )
        self._preemptor = Preemptor(dispatcher, self.replicas, metrics)
        self.keepalive = SseKeepalive(
            self.spawn, lambda request: dispatcher.queue.position(request.queued)
        )
        self.draining = False
        self.is_leader = True
        """It dispatches requests to replicas; a standby relays them to the leader."""
        self.lease_valid_until = math.inf
        """No request is dispatched later than this: another balancer may be the leader then."""
        self.active: set[ProxiedRequest] = set()
        """Requests that are queued or assigned to an upstream."""
        self.view_age: Callable[[], float] = lambda: 0.0
        """Seconds since the API server last confirmed the replicas and the access rules."""
        self.on_demand: Callable[[], None] = lambda: None
        """Called when a request is queued."""
        self.stall_monitor = StallMonitor(
            self.replicas, self.active, timeouts or ReplicaTimeouts(), self._on_unresponsive
        )
        self.on_accepted: Callable[[ProxiedRequest], None] = lambda _: None
        self._targets: tuple[dict[str, bool], Collection[str]] = {}, ()
        self._paused = False
        # A request that is rejected instead of being sent frees its slot, which dispatches again.
        self._reentry = Reentry(self._dispatch_once)
        self._relay = relay.RelayTarget()
        self.access = access
        self.handle = RelayVerification(access, self.spawn, self._handle).handle
        """Queues a complete request, or responds to it."""
        self._sender = Sender(
            access,
            self.spawn,
            lambda: self._may_dispatch(self.now()),
            self._requeue_unsent,
            self.on_upstream_failure,
        )
        self._request_log = RequestLog(metrics, log)
        self.body_admission = BodyAdmission(
            access.authenticate, self._request_log.rejected_incomplete, cors.ANY_ORIGIN
        )
        self.aggregate = Aggregate(self.replicas)
        self._local = LocalRoutes(
            LocalResponses(dispatcher, model), self.replicas, self.aggregate, metrics, self.spawn
        )
        self.replicas.on_joined = self._on_joined
        self._timer = Timer(self._loop)
        self.crash_guard = CrashGuard(self.replicas, metrics, self.active, self.now, self.spawn)
        self.replicas.on_refused = self.crash_guard.on_refused
        self.inspection = RequestInspection(self.replicas, dispatcher, self.crash_guard)
        metrics.view_age.set_function(lambda: float(self.view_age()))
        metrics.access_outdated.set_function(lambda: float(access.outdated))
        self._idle = asyncio.Event()
        self._idle.set()

    def keep_prompts(
        self, port: int, min_tokens: int, timings: PromptTimings = DEFAULT_TIMINGS
    ) -> None:
        """Save and restore prompts, by the agents on this port. To be called first."""
        files = PromptFiles(self.dispatcher, self.replicas, self.metrics, port, min_tokens, timings)
        self.prompts = PromptRestores(files, self._sender, self.spawn, self._release_restored)

    # Clients.

    def _handle(self, exchange: Exchange) -> None:
        message = exchange.request
        key_name = None
        try:
            key_name = self.access.authenticate(message)
            route = self.access.route(message)
            if route is Route.PREFLIGHT:
                cors.ANY_ORIGIN.respond(exchange, cors.ANY_ORIGIN.preflight(message))
                return
            if route in LOCAL and self._relay.leader is None:
                self._local.respond(exchange, route, draining=self.draining)
                return
            # Requests relayed by a standby are accepted still: they have no other leader yet.
            if self.draining and self.is_leader and not relay.hop_count(message):
                raise responses.draining()
            relay.check_hops(message)
            flow_key = self.access.flow_key(message, key_name)
            now = self.now()
            request = ProxiedRequest(self, exchange, route, key_name=key_name, arrived=now)
            request.preemptible = flow_key.preemptible
            if self.inspection.inspect(request):
                self._enqueue(request, flow_key, now)
            else:
                self.inspection.running += 1
                self._idle.clear()
                self.spawn(self._inspect_large(request, flow_key))
        except HttpError as error:
            self._reject(exchange, error, key_name)

    async def _inspect_large(self, request: ProxiedRequest, flow_key: FlowKey) -> None:
        await self.inspection.inspect_large(
            request,
            lambda: self._enqueue(request, flow_key, self.now()),
            lambda error: self._reject(request.exchange, error, request.key_name),
        )
        self._update_idle()

    def _enqueue(self, request: ProxiedRequest, flow_key: FlowKey, now: float) -> None:
        """Queue an inspected request. Raises HttpError."""
        message = request.exchange.request
        self.inspection.check(request, flow_key.key)
        try:
            request.queued = self.dispatcher.enqueue(
                request,
                message.size,
                now,
                prefixes=request.prefixes,
                tasks=request.tasks,
                flow_key=flow_key,
                bounded=self._relay.leader is None,
                abortable=request.is_stream,
            )
        except QueueFull as full:
            raise responses.queue_full(str(full), self.dispatcher.retry_after(now)) from None
        request.exchange.on_disconnect = request.on_client_disconnect
        self.active.add(request)
        self._idle.clear()
        self._dispatch(now)
        self._preemptor.shorten_queue()
        request.stats.queue_position = self.dispatcher.queue.position(request.queued)
        if request.stats.queue_position:
            self.keepalive.add(request)
            self.on_demand()

    def _reject(self, exchange: Exchange, error: HttpError, key_name: str | None) -> None:
        cors.ANY_ORIGIN.respond_with_error(exchange, error)
        self._request_log.rejected(exchange, error, key_name)

    def _update_idle(self) -> None:
        if not self.active and not self.inspection.running:
            self._idle.set()

    # Slots.

    def dispatch(self) -> None:
        """Dispatch queued requests to free slots. To be called when a slot may have become free."""
        self._dispatch(self.now())

    def set_replicas(self, targets: dict[str, bool], terminating: Collection[str] = ()) -> None:
        """Set the replicas by `host:port`; False: it gets no new requests.

        `terminating` are those whose pod is being deleted.
        """
        self._targets = targets, terminating
        if self.is_leader:
            self.replicas.set_targets(targets, terminating)
            if self.prompts:
                self.prompts.files.set_targets(targets, terminating)
            self._preemptor.leave_ending_replicas()

    def set_blocked(self, blocker: StartBlocker | None) -> None:
        """Set what keeps replicas from starting; None: nothing."""
        self.dispatcher.set_blocked(blocker, self.now())
        self._arm_timer()

    @property
    def has_queued(self) -> bool:
        """Whether requests are queued here."""
        return self.dispatcher.queued > 0

    @property
    def at_zero(self) -> bool:
        """Whether this leader has neither a ready replica nor a queued request."""
        return self.is_leader and not (self.dispatcher.has_replica or self.has_queued)

    def _dispatch(self, now: float) -> None:
        if self._reentry.run(now):
            self._arm_timer()

    def _dispatch_once(self, now: float) -> None:
        if leader := self._relay.leader:
            for queued in self.dispatcher.take_all():
                self._send_to_leader(queued.request, leader)
        elif self._may_dispatch(now):
            reservations = self.dispatcher.dispatch(now)
            self.demand.record(self.dispatcher.demand, now)
            for reservation in reservations:
                self._send_to_replica(reservation)
            self._preemptor.free_slots()
        if self.priming:
            self.priming.on_queue()

    def _may_dispatch(self, now: float) -> bool:
        return self.is_leader and not self._paused and now < self.lease_valid_until

    def _arm_timer(self) -> None:
        due = self.dispatcher.next_wakeup()
        if due is None:
            self._timer.stop()
        else:
            self._timer.start(due - self.now(), self._on_timer)

    def _on_timer(self) -> None:
        now = self.now()
        for queued in self.dispatcher.take_expired(now):
            error = responses.queue_timeout(self.dispatcher, now)
            queued.request.respond_with_error(error, Outcome.TIMED_OUT)
        self.dispatch()

    # Upstreams.

    def _send_to_replica(self, reservation: SlotReservation[ProxiedRequest]) -> None:
        request = reservation.queued.request
        self.keepalive.discard(request)
        try:
            self.inspection.check(request, reservation.key, reservation.replica)
        except HttpError as error:
            self.dispatcher.release_all(reservation, self.now())
            request.respond_with_error(error, Outcome.REJECTED)
            return
        pool = self.replicas.pool(reservation.replica.name)
        request.assign_replica(reservation, pool)
        if not (self.prompts and self.prompts.begin(request, reservation, pool)):
            self._sender.send(request, pool)

    def _send_to_leader(self, request: ProxiedRequest, leader: relay.Leader) -> None:
        self.keepalive.discard(request)
        request.assign_leader(leader.address, leader.proof, leader.pool)
        if request.loop_delayed or not relay.is_looping(request.exchange.request):
            self._sender.send(request, leader.pool)
        else:
            self.spawn(self._delay_looping(request, leader.pool))

    async def _delay_looping(self, request: ProxiedRequest, pool: Pool) -> None:
        await asyncio.sleep(relay.LOOP_DELAY_SECONDS)
        if request.pool is pool:
            request.loop_delayed = True
            request.detach()
            self._continue(request, retry.resume(local=request.local_route is not None))

    async def _hold(self, request: ProxiedRequest, replica: str, reason: str) -> None:
        ending = await self.replicas.wait_ending(replica)
        if request in self.active:
            if ending:
                self.crash_guard.on_ending(request)
                self.metrics.retries.inc()
            self._continue(
                request,
                retry.Action.REQUEUE if ending else retry.Action.RESPOND_WITH_ERROR,
                reason,
            )

    def _on_joined(self, name: str) -> None:
        self.spawn(self.aggregate.describe(name))
        if self.prompts:
            self.prompts.files.joined(name)

    def _release_restored(self, reservation: SlotReservation[ProxiedRequest]) -> None:
        self.dispatcher.release_all(reservation, self.now())
        self.dispatch()

    def _on_unresponsive(self, requests: Sequence[ProxiedRequest], reason: str) -> None:
        self.crash_guard.on_unresponsive(requests)
        for request in requests:
            if reservation := request.give_up():
                self.on_released(reservation, occupied=request.needs_slot)
            request.respond_with_error(responses.replica_unresponsive(reason), Outcome.FAILED)

    def _requeue_unsent(self, request: ProxiedRequest) -> None:
        self._detach(request, occupied=False)
        self._continue(request, retry.Action.REQUEUE)

    def _detach(self, request: ProxiedRequest, *, occupied: bool) -> None:
        if reservation := request.detach():
            self.on_released(reservation, occupied=occupied)

    def _continue(self, request: ProxiedRequest, action: retry.Action, reason: str = "") -> None:
        if action is retry.Action.REQUEUE:
            request.return_to_queue()
            self.dispatcher.requeue(request.queued)
            self.keepalive.add(request)
            self.dispatch()
        elif action is retry.Action.RESPOND_LOCALLY and request.local_route:
            # Never queued again: a replica's /slots would show prompts.
            request.return_to_queue()
            message = request.exchange.request
            try:
                request.respond(
                    self._local.response(request.local_route, message, draining=self.draining)
                )
            except HttpError as error:
                request.respond_with_error(error, Outcome.FAILED)
        elif action is retry.Action.ABORT:
            request.abort_response()
        else:
            request.respond_with_error(responses.replica_failed(reason), Outcome.FAILED)

    # RequestHost.

    def on_completed(self, reservation: SlotReservation[ProxiedRequest]) -> None:
        """Free the slots of a request whose response is complete."""
        self.replicas.completed(reservation.replica.name)
        self.crash_guard.on_completed(reservation.queued.request)
        self.dispatcher.release_all(reservation, self.now())

    def on_released(self, reservation: SlotReservation[ProxiedRequest], *, occupied: bool) -> None:
        """Free the slots of a request that ended early; if occupied, when llama-server has."""
        if occupied:
            self.replicas.abort(reservation)
        elif not (self.prompts and self.prompts.is_running(reservation)):
            self.dispatcher.release_all(reservation, self.now())

    def on_upstream_failure(self, request: ProxiedRequest, attempt: retry.FailedAttempt) -> None:
        """Carry out what retry.py decides on a failed attempt."""
        upstream = request.stats.upstream
        if attempt.sent and not (attempt.relayed or attempt.stale or attempt.malformed):
            attempt = replace(attempt, ending=self.replicas.is_ending(upstream))
            self.crash_guard.on_lost(upstream, request)
        decision = retry.decide(attempt)
        if decision.action is retry.Action.RECONNECT and request.pool:
            self.spawn(self._sender.connect(request, request.pool))
            return
        if decision.ejection:
            self.replicas.eject(upstream, decision.ejection, attempt.reason)
        self._detach(request, occupied=attempt.sent and request.needs_slot)
        if decision.stop_relaying:
            self._relay.stop(upstream, attempt.reason)
        if decision.action in retry.RETRIES:
            self.metrics.retries.inc()
        if decision.action is retry.Action.HOLD:
            self.spawn(self._hold(request, upstream, attempt.reason))
        else:
            self._continue(request, decision.action, attempt.reason)

    def on_finished(self, request: ProxiedRequest, outcome: Outcome) -> None:
        """Record a finished request, and dispatch others."""
        now = self.now()
        if outcome is Outcome.CLIENT_DISCONNECTED:
            self.dispatcher.cancel(request.queued)
        self.active.discard(request)
        self.keepalive.discard(request)
        tokens = self._request_log.finished(request, outcome, now)
        if self.prompts:
            self.prompts.finished(request, tokens)
        self._update_idle()
        self._dispatch(now)

    # LeaderCallbacks: which balancer dispatches.

    def become_leader(self) -> None:
        """Dispatch to replicas, after /slots of each has shown what runs there already."""
        self.is_leader = True
        self._paused = False
        self.metrics.leader.set(1)
        self.metrics.leadership_acquired.inc()
        self._relay.close()
        self.set_replicas(*self._targets)

    def become_standby(self, leader: str | None, proof: bytes = b"") -> None:
        """Relay what is queued or arrives to `leader` (HOST:PORT of its clients' port).

        None: hold it until there is a leader. Running requests continue. `proof`: for the leader
        that the requests are from a balancer.
        """
        if self.is_leader:
            self.is_leader = False
            self._paused = False
            self.metrics.leader.set(0)
            self._preemptor.end_leadership()
            self.demand = DemandStatistics()
            self.replicas.set_targets({})
            if self.prompts:
                self.prompts.files.stop()
            if self.priming:
                self.priming.stop()
        if self._relay.set(leader, proof):
            self.dispatch()

    def pause(self, paused: bool) -> None:
        """Dispatch nothing while the leadership is uncertain."""
        self._paused = paused
        self.dispatch()

    def peer_lost(self, address: str) -> None:
        """Retry what was relayed to a balancer that no longer responds.

        If its address no longer exists, TCP reports nothing for a quarter of an hour.
        """
        for request in list(self.active):
            if request.relayed and request.stats.upstream == address:
                request.on_leader_lost()

    @property
    def is_relaying(self) -> bool:
        """Whether requests are relayed to another balancer."""
        return self._relay.leader is not None

    @property
    def all_visible(self) -> bool:
        """Whether the replicas' /slots count everything that was sent from here."""
        now = self.now()
        return all(request.is_visible(now) for request in self.active)

    # The process.

    async def drain(self, seconds: float) -> int:
        """Reject new requests; return how many are still active after at most `seconds`."""
        self.draining = True
        await wait_idle(self._idle, seconds)
        return len(self.active)

    async def close(self) -> None:
        """Abort active requests and close all connections."""
        self._paused = True  # a slot that becomes free now must not be used
        for request in list(self.active):
            request.abort()
        self._timer.stop()
        self.keepalive.close()
        await self.stall_monitor.close()
        self._relay.close()
        if self.prompts:
            await self.prompts.files.close()
        await self.replicas.close()
        await self._tasks.join()
        self._request_log.log.flush()
