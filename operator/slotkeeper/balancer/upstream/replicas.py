"""The replicas that there are: joined when well, set aside when not, asked what they let go of."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slotkeeper.balancer.metrics import Metrics
from slotkeeper.llamacpp.slots import NotSlots, parse_slots, processing
from slotkeeper.scheduling import SlotReservation, Dispatcher, SlotHold, SlotProbe, Replica
from slotkeeper.scheduling.ejection import UpstreamFailure, ejection_seconds
from slotkeeper.wire.client import Pool
from slotkeeper.wire.http_get import get

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How replicas are asked; seconds."""

    first_retry: float = 0.02
    """After a first failed look at a replica that is to join; doubled with each."""
    last_retry: float = 1.0
    answer: float = 2.0
    """For /health and /slots to answer. Late means busy: it is asked again."""
    first_look: float = 0.005
    """Between the first two looks at what an abandoned request's replica has let go of: as long as
    a quick decode step. Doubled with each."""
    last_look: float = 0.05
    inherited_look: float = 0.2
    """Between two looks where only requests are waited for that did not come through here."""
    give_back: float = 30.0
    """An abandoned request's slot is taken for free after this, whatever /slots says: some
    versions of llama-server finish a request that nobody waits for."""
    first_aside: float = 0.5
    """How long a replica is set aside that says it is well and fails the second time in a row;
    doubled with each further time."""
    last_aside: float = 30.0
    stall: float = 30.0
    """Without a byte on any of its requests a replica is asked whether it is well."""
    stall_look: float = 1.0
    """Between two looks at whether bytes have come."""


@dataclass(slots=True, eq=False)
class _Member:
    name: str
    host: str
    port: int
    pool: Pool
    wanted: bool = True
    context: int = 0
    answers: int = 0
    strikes: int = 0  # failures since its last good answer
    joining: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)


class Replicas:
    """Members by name (`host:port`).

    `slots`: how many each has, or None to ask its /slots. `freed` is called whenever a slot may
    have come free.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        metrics: Metrics,
        freed: Callable[[], None],
        *,
        slots: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._freed = freed
        self._slots = slots
        self._patience = patience or Patience()
        self._members: dict[str, _Member] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def contexts(self) -> dict[str, int]:
        """Tokens of context in a slot, by replica; 0 where unknown."""
        return {member.name: member.context for member in self._members.values()}

    def pool(self, name: str) -> Pool:
        """The connections to a replica."""
        return self._members[name].pool

    def change(self, wanted: Mapping[str, bool]) -> None:
        """These replicas there are; True: it may get new requests."""
        for name, usable in wanted.items():
            self._want(name, usable)
        for name, member in list(self._members.items()):
            if name in wanted:
                continue
            if member.wanted:
                self._unwant(member)
            self._dispatcher.remove(name, self._loop.time())
            if name not in self._dispatcher.replicas:
                del self._members[name]
                member.pool.close()
        self._freed()

    def set_aside(self, name: str, fault: UpstreamFailure, reason: str) -> None:
        """A replica failed: it gets nothing new until it is well again."""
        member = self._members.get(name)
        if member is None or not member.wanted or member.joining:
            return
        _log.warning("replica %s set aside, %s: %s", name, fault.value, reason)
        self._metrics.set_aside.inc(fault.value)
        self._dispatcher.drain(name, self._loop.time())
        member.pool.drop_idle()
        member.strikes += fault.outlasts_health_check
        member.joining = self._loop.create_task(self._rejoin(member, fault))

    def answered(self, name: str) -> None:
        """A replica gave a whole answer."""
        if member := self._members.get(name):
            member.answers += 1
            member.strikes = 0

    def answers(self, name: str) -> int:
        """How many whole answers a replica gave."""
        return self._members[name].answers

    def in_use(self, name: str) -> bool:
        """It is one that gets new requests."""
        member = self._members.get(name)
        return member is not None and member.wanted and member.joining is None

    async def is_well(self, name: str) -> bool:
        """Its /health says so, in time."""
        try:
            status, _ = await self._get(self._members[name], "/health")
        except OSError:
            return False
        return status == 200

    def abandon(self, claim: SlotReservation[Any]) -> None:
        """A request was sent and is over before its end: free its slot when the replica has."""
        self._dispatcher.abort(claim, self._loop.time())
        self._watch_letting_go(self._members[claim.replica.name])

    async def close(self) -> None:
        """End all tasks and connections."""
        tasks = [
            task
            for member in self._members.values()
            for task in (member.joining, member.watching)
            if task
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members.values():
            member.pool.close()

    def _watch_letting_go(self, member: _Member) -> None:
        member.abandoned.set()
        if member.watching is None:
            member.watching = self._loop.create_task(self._watch(member))

    def _want(self, name: str, usable: bool) -> None:
        member = self._members.get(name)
        if member is None:
            host, _, port = name.rpartition(":")
            host = host.strip("[]")
            member = _Member(name, host, int(port), Pool(host, int(port)), wanted=False)
            self._members[name] = member
        if usable and not member.wanted:
            member.wanted = True
            member.joining = self._loop.create_task(self._join(member))
        elif not usable and member.wanted:
            self._unwant(member)

    def _unwant(self, member: _Member) -> None:
        member.wanted = False
        # It gets nothing new from here, and each idle connection holds one of its HTTP threads.
        member.pool.max_idle = 0
        member.pool.drop_idle()
        if member.joining:
            member.joining.cancel()
            member.joining = None
        self._dispatcher.drain(member.name, self._loop.time())

    async def _rejoin(self, member: _Member, fault: UpstreamFailure) -> None:
        if fault.outlasts_health_check:
            patience = self._patience
            await asyncio.sleep(
                ejection_seconds(member.strikes, patience.first_aside, patience.last_aside)
            )
        await self._join(member)

    async def _join(self, member: _Member) -> None:
        delay = self._patience.first_retry
        told = ""
        while True:
            try:
                slots, processing = await self._look_at_new(member)
                break
            except (OSError, NotSlots) as error:
                if str(error) != told:
                    told = str(error)
                    _log.info("replica %s is not ready: %s", member.name, told or "no answer")
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._patience.last_retry)
        member.joining = None
        member.pool.max_idle = slots
        now = self._loop.time()
        self._dispatcher.add(member.name, slots, now)
        self._dispatcher.adopt(member.name, processing, now)
        _log.info(
            "replica %s joined with %d slots, %d of them at work already",
            *(member.name, slots, processing),
        )
        if processing:
            self._watch_letting_go(member)
        self._freed()

    async def _look_at_new(self, member: _Member) -> tuple[int, int]:
        """How many slots, and how many of them work on what did not come through here."""
        status, _ = await self._get(member, "/health")
        if status != 200:
            raise NotSlots(f"/health answers {status}")
        if self._slots is not None:
            return self._slots, 0
        known = self._dispatcher.replicas.get(member.name, Replica(member.name, 0))
        look = SlotProbe(known, self._loop.time())
        status, body = await self._get(member, "/slots")
        if status != 200:
            raise NotSlots(f"/slots answers {status}")
        slots = parse_slots(body)
        member.context = min(slot.n_ctx for slot in slots)
        return len(slots), look.foreign(processing(slots))

    async def _watch(self, member: _Member) -> None:
        delay = self._patience.first_look
        while member.name in self._dispatcher.replicas:
            member.abandoned.clear()
            look = SlotProbe(self._dispatcher.replicas[member.name], self._loop.time())
            if look.is_empty:
                break
            let_go = await self._look(member, look)
            now = self._loop.time()
            for claim in look.timed_out(now, self._patience.give_back):
                if claim not in let_go:
                    _log.warning("replica %s did not let go of a slot in time", member.name)
                    self._metrics.let_go_timeouts.inc()
                    let_go.append(claim)
            for claim in let_go:
                self._metrics.let_go_seconds.observe(now - (claim.aborted_at or now))
                self._dispatcher.release(claim, now)
            if let_go:
                self._freed()
            try:
                async with asyncio.timeout(delay):
                    await member.abandoned.wait()
                delay = self._patience.first_look
            except TimeoutError:
                patience = self._patience
                longest = patience.inherited_look if look.only_adopted else patience.last_look
                delay = min(2 * delay, longest)
        member.watching = None

    async def _look(self, member: _Member, look: SlotProbe) -> list[SlotHold]:
        try:
            status, body = await self._get(member, "/slots")
            if status in {404, 501} and self._slots is not None:
                # Without /slots there is nothing to go by but that the connection is closed.
                count = 0
            elif status == 200:
                count = processing(parse_slots(body))
            else:
                return []
        except ConnectionRefusedError as error:
            # The process is gone, and its slots with it.
            self.set_aside(member.name, UpstreamFailure.REFUSED, str(error))
            count = 0
        except (OSError, NotSlots):
            return []
        return look.released(count)

    async def _get(self, member: _Member, path: str) -> tuple[int, bytes]:
        return await get(member.host, member.port, path, seconds=self._patience.answer)
