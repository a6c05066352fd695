"""Clients on one side, the dispatcher in the middle, replicas on the other."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from slotkeeper.api.blocker import Obstacle
from slotkeeper.balancer import responses
from slotkeeper.balancer.access import Callers
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.proxy import relay
from slotkeeper.balancer.proxy.body_admission import ClientGate
from slotkeeper.balancer.proxy.keepalive import Heartbeats
from slotkeeper.balancer.proxy.request import NOT_PASSED_ON, Forward
from slotkeeper.balancer.proxy.request_log import Accounts
from slotkeeper.balancer.proxy.stall_monitor import Stalls
from slotkeeper.balancer.upstream.replicas import Patience, Replicas
from slotkeeper.edge import cors
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.routes import KEEPS_PROMPT, OWN, STREAMS, Route
from slotkeeper.scheduling import (
    SCANNED_BYTES,
    Dispatcher,
    PrefixHashes,
    QueueFull,
    RecentDemand,
    prefix_hashes,
)
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Answer, Request
from slotkeeper.wire.timer import Clock

_log = logging.getLogger(__name__)
_IDLE_RELAYS = 64


class Proxy:
    """Handles every request of the clients' side. All of it happens in the event loop.

    `slots`: how many each replica has, or None to ask its /slots.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Forward],
        callers: Callers,
        log: AccessLog,
        model: responses.Model,
        *,
        slots: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.metrics = metrics = Metrics(dispatcher)
        self.demand = RecentDemand()
        self.replicas = Replicas(dispatcher, metrics, self.pump, slots=slots, patience=patience)
        self.heartbeats = Heartbeats(
            self.spawn, lambda forward: dispatcher.queue.position(forward.ticket)
        )
        self.draining = False
        self.leads = True
        """Slots are handed out here; else what comes in is relayed to the balancer that does."""
        self.sure_until = math.inf
        """Until when that is known for sure: after it, nothing is handed out."""
        self.active: set[Forward] = set()
        """Requests that are waiting or running."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called when a request has come and waits."""
        self._wanted: dict[str, bool] = {}
        self._paused = False
        self._relay: tuple[str, Pool] | None = None
        self.stalls = Stalls(self.replicas, self.active, patience or Patience())
        self.not_passed_on = NOT_PASSED_ON | callers.not_passed_on
        """Headers that are not for llama-server."""
        self._callers = callers
        self._accounts = Accounts(metrics, log)
        self.gate = ClientGate(callers, self._accounts)
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = Clock(self._loop)
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def now(self) -> float:
        """The loop's clock: the time of all that is decided here."""
        return self._loop.time()

    def handle(self, exchange: Exchange) -> None:
        """A request has come in whole."""
        request = exchange.request
        name = None
        try:
            name = self._callers.name(request)
            way = self._callers.way(request)
            if way is Route.PREFLIGHT:
                cors.answer(exchange, cors.preflight(request))
                return
            if way in OWN and self._relay is None:
                cors.answer(exchange, self.own(way))
                return
            # One that another balancer passes on has nowhere else to go until that one leads.
            if self.draining and self.leads and not relay.times_relayed(request):
                raise responses.draining()
            relay.check(request)
            standing = self._callers.standing(request, name)
            now = self.now()
            forward = Forward(self, exchange, needs_slot=way is Route.DECODE, arrived=now)
            forward.key = name
            forward.own = way if way in OWN else None
            try:
                forward.ticket = self.dispatcher.enqueue(
                    forward,
                    request.size,
                    now,
                    prompt=self._prompt(request),
                    standing=standing,
                    bounded=self._relay is None,
                )
            except QueueFull as full:
                raise responses.queue_full(str(full), self.dispatcher.retry_after(now)) from None
        except Refusal as refusal:
            cors.refuse(exchange, refusal)
            self._accounts.refused(exchange, refusal, name)
            return
        exchange.on_gone = forward.gone
        self.active.add(forward)
        self._at_rest.clear()
        self._pump(now)
        forward.stats.queue_position = self.dispatcher.queue.position(forward.ticket)
        if forward.stats.queue_position:
            self.wait(forward)
            self.on_wait()

    def wait(self, forward: Forward) -> None:
        """A request waits: give it signs of life if it may be answered with a stream."""
        request = forward.exchange.request
        # An HTTP/1.0 client knows no chunks.
        if request.http11 and request.path in STREAMS:
            self.heartbeats.add(forward)

    # Which balancer hands out the slots.

    def change(self, wanted: dict[str, bool]) -> None:
        """These replicas there are; True: it may get new requests."""
        self._wanted = wanted
        if self.leads:
            self.replicas.change(wanted)

    def lead(self) -> None:
        """Hand out the slots. What runs on the replicas already is counted first, by /slots."""
        self.leads = True
        self._paused = False
        self.metrics.leads.set(1)
        self.metrics.takeovers.inc()
        self._close_relay()
        self.replicas.change(self._wanted)

    def stand_by(self, peer: str | None) -> None:
        """Hand out no slots: relay what waits and what comes to `peer` (HOST:PORT of its clients'
        side), or hold it while there is none. What runs goes on."""
        if self.leads:
            self.leads = False
            self._paused = False
            self.metrics.leads.set(0)
            self.demand = RecentDemand()
            self.replicas.change({})
        if peer == (self._relay and self._relay[0]):
            return
        self._close_relay()
        if peer:
            host, _, port = peer.rpartition(":")
            self._relay = peer, Pool(host.strip("[]"), int(port), max_idle=_IDLE_RELAYS)
        self.pump()

    def pause(self, paused: bool) -> None:
        """Hand out no slots for a moment, though nobody else does."""
        self._paused = paused
        self.pump()

    def hinder(self, obstacle: Obstacle | None) -> None:
        """This keeps replicas from starting, as the operator knows; None: nothing does."""
        self.dispatcher.set_blocked(obstacle, self.now())
        self._watch_time()

    @property
    def relays(self) -> bool:
        """What comes in is passed on to another balancer."""
        return self._relay is not None

    @property
    def settled(self) -> bool:
        """Whoever asks the replicas' /slots now finds all that was sent from here counted."""
        now = self.now()
        return all(forward.settled(now) for forward in self.active)

    @property
    def waits(self) -> bool:
        """Requests wait here for a slot."""
        return self.dispatcher.queued > 0

    def lost(self, peer: str) -> None:
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

    def pump(self) -> None:
        """Give what is free to those who wait. Called after all that may have freed something."""
        self._pump(self.now())

    def over(self, forward: Forward, outcome: str) -> None:
        """A request is over, with `outcome` answered, gone, cut, failed or expired."""
        now = self.now()
        self.active.discard(forward)
        self.heartbeats.discard(forward)
        self._accounts.over(forward, outcome, now)
        if not self.active:
            self._at_rest.set()
        self._pump(now)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, and hold on to it until it is done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def own(self, way: Route) -> Answer:
        """What we say ourselves of all replicas together."""
        contexts = self.replicas.contexts
        tokens = self.metrics.tokens
        return responses.own(way, self.dispatcher, self._model, contexts, tokens)

    def autoscaling(self) -> Answer:
        """The demand, for whoever decides on replicas."""
        now = self.now()
        return responses.autoscaling(self.dispatcher, self.demand, now, leads=self.leads)

    async def drain(self, seconds: float) -> int:
        """Take nothing new; how many requests are still not over after `seconds`."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._at_rest.wait()
        return len(self.active)

    async def close(self) -> None:
        """Cut what is left and let go of everything."""
        self._paused = True  # a slot that comes free now is not for the next one
        for forward in list(self.active):
            forward.cut()
        self._clock.stop()
        self.heartbeats.close()
        await self.stalls.close()
        self._close_relay()
        await self.replicas.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._accounts.log.flush()

    def _pump(self, now: float) -> None:
        if self._relay:
            for ticket in self.dispatcher.take_all():
                ticket.request.relay(*self._relay)
        elif self.leads and not self._paused and now < self.sure_until:
            claims = self.dispatcher.dispatch(now)
            self.demand.record(self.dispatcher.busy_slots + self.dispatcher.queued, now)
            for claim in claims:
                claim.queued.request.start(claim)
        self._watch_time()

    def _close_relay(self) -> None:
        if self._relay:
            self._relay[1].close()
            self._relay = None

    def _prompt(self, request: Request) -> PrefixHashes:
        if self.dispatcher.affinity is None or request.path not in KEEPS_PROMPT:
            return ()
        return prefix_hashes(request.beginning(SCANNED_BYTES))

    def _watch_time(self) -> None:
        due = self.dispatcher.next_wakeup()
        if due is None:
            self._clock.stop()
        else:
            self._clock.start(due - self.now(), self._time_is_up)

    def _time_is_up(self) -> None:
        now = self.now()
        for ticket in self.dispatcher.expired(now):
            ticket.request.refuse(responses.waited_too_long(self.dispatcher, now), "expired")
        self.pump()
