"""Clients on one side, the dispatcher in the middle, replicas on the other."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from slotkeeper.balancer import answers, inspection
from slotkeeper.balancer.callers import Callers
from slotkeeper.balancer.forward import Forward
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.policy import LOOKED_AT, Dispatcher, Ladder, PeakDemand, QueueFull, ladder
from slotkeeper.balancer.record import AccessLog
from slotkeeper.balancer.replicas import Patience, Replicas
from slotkeeper.balancer.routes import KEEPS_PROMPT, Route, route
from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Answer, Request


class Proxy:
    """Handles every request of the clients' side. All of it happens in the event loop.

    `slots`: how many each replica has, or None to ask its /slots.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Forward],
        callers: Callers,
        log: AccessLog,
        model: answers.Model,
        *,
        slots: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.metrics = metrics = Metrics(dispatcher)
        self.peak = PeakDemand()
        self.replicas = Replicas(dispatcher, metrics, self.pump, slots=slots, patience=patience)
        self.draining = False
        self.active: set[Forward] = set()
        """Requests that are waiting or running."""
        self._callers = callers
        self._log = log
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def now(self) -> float:
        """The loop's clock: the time of all that is decided here."""
        return self._loop.time()

    def handle(self, exchange: Exchange) -> None:
        """A request has come in whole."""
        request = exchange.request
        try:
            way = route(request.method, request.path)
            # Not `in`: an Enum's hash is a call in Python.
            if way is not Route.DECODE and way is not Route.LIGHT:
                exchange.answer(self._own(way))
                return
            if self.draining:
                raise answers.draining()
            standing, now = self._callers.standing(request), self.now()
            forward = Forward(self, exchange, needs_slot=way is Route.DECODE, arrived=now)
            try:
                forward.ticket = self.dispatcher.offer(
                    forward,
                    request.size,
                    now,
                    prompt=self._prompt(request),
                    standing=standing,
                )
            except QueueFull as full:
                raise answers.queue_full(str(full), self.dispatcher.retry_after(now)) from None
        except Refusal as refusal:
            exchange.refuse(refusal)
            self.metrics.over("refused", refusal.status)
            self._log.add({**_said(exchange), "outcome": "refused", "code": refusal.code})
            return
        exchange.on_gone = forward.gone
        self.active.add(forward)
        self._at_rest.clear()
        self._pump(now)
        forward.position = self.dispatcher.queue.position(forward.ticket)

    def pump(self) -> None:
        """Give what is free to those who wait. Called after all that may have freed something."""
        self._pump(self.now())

    def over(self, forward: Forward, outcome: str) -> None:
        """A request is over, with `outcome` answered, gone, cut, failed or expired."""
        now = self.now()
        self.active.discard(forward)
        exchange, metrics, arrived = forward.exchange, self.metrics, forward.arrived
        waited = (forward.claimed_at or now) - arrived
        metrics.over(outcome, exchange.status)
        metrics.wait_seconds.observe(waited)
        metrics.request_seconds.observe(now - arrived)
        if forward.hit is not None:
            (metrics.prefix_hits if forward.hit else metrics.prefix_misses).inc()
        first = None
        if forward.first_at is not None:
            first = forward.first_at - arrived
            metrics.first_token_seconds.observe(first)
        if self._log.kept:
            self._log.add(
                {
                    **_said(exchange),
                    "outcome": outcome,
                    "replica": forward.replica or None,
                    "tries": forward.ticket.tries,
                    "hit": forward.hit,
                    "overtaken": forward.ticket.overtaken,
                    "wait": waited,
                    "first_byte": first,
                    "seconds": now - arrived,
                    "bytes_in": forward.received,
                    "bytes_out": forward.sent,
                }
            )
        if not self.active:
            self._at_rest.set()
        self._pump(now)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, and hold on to it until it is done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def autoscaling(self) -> Answer:
        """The demand, for whoever decides on replicas."""
        now = self.now()
        return answers.autoscaling(self.dispatcher, self.peak.peak(now), now)

    def queue(self) -> Answer:
        """Who waits for what, for people."""
        return inspection.queue(self.dispatcher, self.now())

    async def drain(self, seconds: float) -> int:
        """Take nothing new; how many requests are still not over after `seconds`."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._at_rest.wait()
        except TimeoutError:
            pass
        return len(self.active)

    async def close(self) -> None:
        """Cut what is left and let go of everything."""
        for forward in list(self.active):
            forward.cut()
        if self._timer:
            self._timer.cancel()
        await self.replicas.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._log.flush()

    def _pump(self, now: float) -> None:
        claims = self.dispatcher.claims(now)
        self.peak.note(self.dispatcher.busy + self.dispatcher.waiting, now)
        for claim in claims:
            claim.ticket.payload.start(claim)
        self._watch_time()

    def _prompt(self, request: Request) -> Ladder:
        if self.dispatcher.affinity is None or request.path not in KEEPS_PROMPT:
            return ()
        return ladder(request.beginning(LOOKED_AT))

    def _own(self, way: Route) -> Answer:
        dispatcher = self.dispatcher
        if way is Route.MODELS:
            return answers.models(self._model)
        if way is Route.SLOTS:
            return answers.slots(dispatcher, self.replicas.contexts)
        if way is Route.PROPS:
            return answers.props(dispatcher, self.replicas.contexts, self._model)
        return answers.health(dispatcher)

    def _watch_time(self) -> None:
        due = self.dispatcher.next_call()
        if due is None:
            return
        if self._timer and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        now = self.now()
        for ticket in self.dispatcher.expired(now):
            wait = self.dispatcher.retry_after(now)
            ticket.payload.refuse(answers.waited_too_long(self.dispatcher, wait), "expired")
        self.pump()


def _said(exchange: Exchange) -> dict[str, object]:
    request = exchange.request
    return {
        "client": exchange.peer,
        "method": request.method.decode(),
        "path": request.path.decode("ascii", "replace"),
        "status": exchange.status or None,
    }
