"""Clients on one side, the dispatcher in the middle, replicas on the other."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.balancer import responses
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy import relay
from slotkeeper.balancer.proxy.body_admission import BodyAdmission
from slotkeeper.balancer.proxy.keepalive import SseKeepalive
from slotkeeper.balancer.proxy.request import STRIPPED_HEADERS, ProxiedRequest
from slotkeeper.balancer.proxy.request_log import RequestLog
from slotkeeper.balancer.proxy.stall_monitor import StallMonitor
from slotkeeper.balancer.upstream.replicas import ReplicaSet, ReplicaTimeouts
from slotkeeper.edge import cors
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.routes import LOCAL, PREFIX_CACHED, STREAMABLE, Route
from slotkeeper.scheduling import (
    SCANNED_BYTES,
    DemandStatistics,
    Dispatcher,
    PrefixHashes,
    QueueFull,
    prefix_hashes,
)
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response, json_response
from slotkeeper.wire.timer import Timer

_log = logging.getLogger(__name__)
_IDLE_RELAYS = 64


class Proxy:
    """Handles every request of the clients' side. All of it happens in the event loop.

    `slots`: how many each replica has, or None to ask its /slots.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[ProxiedRequest],
        callers: RequestAccess,
        log: AccessLog,
        model: responses.Model,
        *,
        slots: int | None = None,
        timeouts: ReplicaTimeouts | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.metrics = metrics = Metrics(dispatcher)
        self.demand = DemandStatistics()
        self.replicas = ReplicaSet(
            dispatcher, metrics, self.dispatch, slots=slots, timeouts=timeouts
        )
        self.keepalive = SseKeepalive(
            self.spawn, lambda forward: dispatcher.queue.position(forward.queued)
        )
        self.draining = False
        self.is_leader = True
        """Slots are handed out here; else what comes in is relayed to the balancer that does."""
        self.lease_valid_until = math.inf
        """Until when that is known for sure: after it, nothing is handed out."""
        self.active: set[ProxiedRequest] = set()
        """Requests that are waiting or running."""
        self.on_demand: Callable[[], None] = lambda: None
        """Called when a request has come and waits."""
        self._replicas: dict[str, bool] = {}
        self._paused = False
        self._relay: tuple[str, Pool] | None = None
        self.stall_monitor = StallMonitor(self.replicas, self.active, timeouts or ReplicaTimeouts())
        self.stripped_headers = STRIPPED_HEADERS | callers.stripped_headers
        """Headers that are not for llama-server."""
        self._access = callers
        self._request_log = RequestLog(metrics, log)
        self.body_admission = BodyAdmission(callers, self._request_log)
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer = Timer(self._loop)
        self._idle = asyncio.Event()
        self._idle.set()

    def now(self) -> float:
        """The loop's clock: the time of all that is decided here."""
        return self._loop.time()

    def handle(self, exchange: Exchange) -> None:
        """A request has come in whole."""
        request = exchange.request
        name = None
        try:
            name = self._access.authenticate(request)
            way = self._access.route(request)
            if way is Route.PREFLIGHT:
                cors.respond(exchange, cors.preflight(request))
                return
            if way in LOCAL and self._relay is None:
                cors.respond(exchange, self.local_response(way))
                return
            # One that another balancer passes on has nowhere else to go until that one leads.
            if self.draining and self.is_leader and not relay.hop_count(request):
                raise responses.draining()
            relay.check(request)
            standing = self._access.flow_key(request, name)
            now = self.now()
            forward = ProxiedRequest(self, exchange, needs_slot=way is Route.INFERENCE, arrived=now)
            forward.key = name
            forward.own = way if way in LOCAL else None
            try:
                forward.queued = self.dispatcher.enqueue(
                    forward,
                    request.size,
                    now,
                    prefixes=self._prompt(request),
                    flow_key=standing,
                    bounded=self._relay is None,
                )
            except QueueFull as full:
                raise responses.queue_full(str(full), self.dispatcher.retry_after(now)) from None
        except HttpError as refusal:
            cors.respond_with_error(exchange, refusal)
            self._request_log.rejected(exchange, refusal, name)
            return
        exchange.on_disconnect = forward.on_client_disconnect
        self.active.add(forward)
        self._idle.clear()
        self._dispatch(now)
        forward.stats.queue_position = self.dispatcher.queue.position(forward.queued)
        if forward.stats.queue_position:
            self.on_queued(forward)
            self.on_demand()

    def on_queued(self, forward: ProxiedRequest) -> None:
        """A request waits: give it signs of life if it may be answered with a stream."""
        request = forward.exchange.request
        # An HTTP/1.0 client knows no chunks.
        if request.http11 and request.path in STREAMABLE:
            self.keepalive.add(forward)

    # Which balancer hands out the slots.

    def set_replicas(self, wanted: dict[str, bool]) -> None:
        """These replicas there are; True: it may get new requests."""
        self._replicas = wanted
        if self.is_leader:
            self.replicas.set_targets(wanted)

    def become_leader(self) -> None:
        """Hand out the slots. What runs on the replicas already is counted first, by /slots."""
        self.is_leader = True
        self._paused = False
        self.metrics.leader.set(1)
        self.metrics.leadership_acquired.inc()
        self._close_relay()
        self.replicas.set_targets(self._replicas)

    def become_standby(self, peer: str | None) -> None:
        """Hand out no slots: relay what waits and what comes to `peer` (HOST:PORT of its clients'
        side), or hold it while there is none. What runs goes on."""
        if self.is_leader:
            self.is_leader = False
            self._paused = False
            self.metrics.leader.set(0)
            self.demand = DemandStatistics()
            self.replicas.set_targets({})
        if peer == (self._relay and self._relay[0]):
            return
        self._close_relay()
        if peer:
            host, _, port = peer.rpartition(":")
            self._relay = peer, Pool(host.strip("[]"), int(port), max_idle=_IDLE_RELAYS)
        self.dispatch()

    def pause(self, paused: bool) -> None:
        """Hand out no slots for a moment, though nobody else does."""
        self._paused = paused
        self.dispatch()

    def set_blocked(self, obstacle: StartBlocker | None) -> None:
        """This keeps replicas from starting, as the operator knows; None: nothing does."""
        self.dispatcher.set_blocked(obstacle, self.now())
        self._arm_timer()

    @property
    def is_relaying(self) -> bool:
        """What comes in is passed on to another balancer."""
        return self._relay is not None

    @property
    def all_visible(self) -> bool:
        """Whoever asks the replicas' /slots now finds all that was sent from here counted."""
        now = self.now()
        return all(forward.is_visible(now) for forward in self.active)

    @property
    def has_queued(self) -> bool:
        """Requests wait here for a slot."""
        return self.dispatcher.queued > 0

    def peer_lost(self, peer: str) -> None:
        """A balancer is gone without a word: what it was given and did not answer is tried again.

        Its address may be gone with it, and then TCP says nothing for a quarter of an hour.
        """
        for forward in list(self.active):
            if forward.relayed and forward.stats.upstream == peer:
                forward.peer_lost()

    def relay_failed(self, peer: str, reason: str) -> None:
        """A relayed request did not get through: hold those to come until it is known where to."""
        if self._relay and self._relay[0] == peer:
            _log.warning("balancer %s does not take requests: %s", peer, reason)
            self._close_relay()

    def dispatch(self) -> None:
        """Give what is free to those who wait. Called after all that may have freed something."""
        self._dispatch(self.now())

    def on_finished(self, forward: ProxiedRequest, outcome: str) -> None:
        """A request is over, with `outcome` answered, gone, cut, failed or expired."""
        now = self.now()
        self.active.discard(forward)
        self.keepalive.discard(forward)
        self._request_log.finished(forward, outcome, now)
        if not self.active:
            self._idle.set()
        self._dispatch(now)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, and hold on to it until it is done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def local_response(self, way: Route) -> Response:
        """What we say ourselves of all replicas together."""
        contexts = self.replicas.contexts
        tokens = self.metrics.tokens
        return responses.local_response(way, self.dispatcher, self._model, contexts, tokens)

    def autoscaling(self) -> Response:
        """The demand, for whoever decides on replicas."""
        now = self.now()
        report = responses.demand_report(self.dispatcher, self.demand, now, leader=self.is_leader)
        return json_response(200, report.to_json())

    async def drain(self, seconds: float) -> int:
        """Take nothing new; how many requests are still not over after `seconds`."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return len(self.active)

    async def close(self) -> None:
        """Cut what is left and let go of everything."""
        self._paused = True  # a slot that comes free now is not for the next one
        for forward in list(self.active):
            forward.abort()
        self._timer.stop()
        self.keepalive.close()
        await self.stall_monitor.close()
        self._close_relay()
        await self.replicas.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._request_log.log.flush()

    def _dispatch(self, now: float) -> None:
        if self._relay:
            for ticket in self.dispatcher.take_all():
                ticket.request.send_to_leader(*self._relay)
        elif self.is_leader and not self._paused and now < self.lease_valid_until:
            claims = self.dispatcher.dispatch(now)
            self.demand.record(self.dispatcher.busy_slots + self.dispatcher.queued, now)
            for claim in claims:
                claim.queued.request.send_to_replica(claim)
        self._arm_timer()

    def _close_relay(self) -> None:
        if self._relay:
            self._relay[1].close()
            self._relay = None

    def _prompt(self, request: Request) -> PrefixHashes:
        if self.dispatcher.affinity is None or request.path not in PREFIX_CACHED:
            return ()
        return prefix_hashes(request.beginning(SCANNED_BYTES))

    def _arm_timer(self) -> None:
        due = self.dispatcher.next_wakeup()
        if due is None:
            self._timer.stop()
        else:
            self._timer.start(due - self.now(), self._on_timer)

    def _on_timer(self) -> None:
        now = self.now()
        for ticket in self.dispatcher.take_expired(now):
            ticket.request.respond_with_error(
                responses.queue_timeout(self.dispatcher, now), "timed_out"
            )
        self.dispatch()
