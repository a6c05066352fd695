"""The replicas that there are: joined when well, set aside when not, asked what they let go of."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from slotkeeper.backoff import Backoff
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.llamacpp.slots import SlotsParseError, parse_slots, processing
from slotkeeper.scheduling import Dispatcher, Replica, SlotHold, SlotProbe, SlotReservation
from slotkeeper.scheduling.ejection import UpstreamFailure, ejection_seconds
from slotkeeper.wire.client import Pool
from slotkeeper.wire.http_get import get

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaTimeouts:
    """How replicas are asked; seconds."""

    join: Backoff = Backoff(0.02, 1.0)  # noqa: RUF009 (frozen)
    """Between two probes of a replica that is not ready yet."""
    response: float = 2.0
    """For /health and /slots to answer. Late means busy: it is asked again."""
    release_poll: Backoff = Backoff(0.005, 0.05)  # noqa: RUF009 (frozen)
    """Between two polls of /slots for the slot of an aborted request: the first is as short as a
    quick decode step."""
    adopted_poll: float = 0.2
    """Between two looks where only requests are waited for that did not come through here."""
    slot_release: float = 30.0
    """An abandoned request's slot is taken for free after this, whatever /slots says: some
    versions of llama-server finish a request that nobody waits for."""
    ejection: Backoff = Backoff(0.5, 30.0)  # noqa: RUF009 (frozen)
    """For how long a replica is ejected that reports health and fails the second time in a row."""
    stall: float = 30.0
    """Without a byte on any of its requests a replica is asked whether it is well."""
    stall_check: float = 1.0
    """Between two looks at whether bytes have come."""


@dataclass(slots=True, eq=False)
class _Upstream:
    name: str
    host: str
    port: int
    pool: Pool
    desired: bool = True
    context: int = 0
    completed: int = 0
    consecutive_failures: int = 0  # failures since its last good answer
    joining: asyncio.Task[None] | None = None
    polling: asyncio.Task[None] | None = None
    aborted: asyncio.Event = field(default_factory=asyncio.Event)


class ReplicaSet:
    """Members by name (`host:port`).

    `slots`: how many each has, or None to ask its /slots. `freed` is called whenever a slot may
    have come free.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        metrics: Metrics,
        on_freed: Callable[[], None],
        *,
        slots: int | None = None,
        timeouts: ReplicaTimeouts | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._on_freed = on_freed
        self._slots = slots
        self._timeouts = timeouts or ReplicaTimeouts()
        self._upstreams: dict[str, _Upstream] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def contexts(self) -> dict[str, int]:
        """Tokens of context in a slot, by replica; 0 where unknown."""
        return {member.name: member.context for member in self._upstreams.values()}

    def pool(self, name: str) -> Pool:
        """The connections to a replica."""
        return self._upstreams[name].pool

    def set_targets(self, wanted: Mapping[str, bool]) -> None:
        """These replicas there are; True: it may get new requests."""
        for name, usable in wanted.items():
            self._add(name, usable)
        for name, member in list(self._upstreams.items()):
            if name in wanted:
                continue
            if member.desired:
                self._withdraw(member)
            self._dispatcher.remove(name, self._loop.time())
            if name not in self._dispatcher.replicas:
                del self._upstreams[name]
                member.pool.close()
        self._on_freed()

    def eject(self, name: str, fault: UpstreamFailure, reason: str) -> None:
        """A replica failed: it gets nothing new until it is well again."""
        member = self._upstreams.get(name)
        if member is None or not member.desired or member.joining:
            return
        _log.warning("replica %s set aside, %s: %s", name, fault.value, reason)
        self._metrics.ejections.inc(fault.value)
        self._dispatcher.drain(name, self._loop.time())
        member.pool.drop_idle()
        member.consecutive_failures += fault.outlasts_health_check
        member.joining = self._loop.create_task(self._rejoin(member, fault))

    def completed(self, name: str) -> None:
        """A replica gave a whole answer."""
        if member := self._upstreams.get(name):
            member.completed += 1
            member.consecutive_failures = 0

    def completed_count(self, name: str) -> int:
        """How many whole answers a replica gave."""
        return self._upstreams[name].completed

    def in_rotation(self, name: str) -> bool:
        """It is one that gets new requests."""
        member = self._upstreams.get(name)
        return member is not None and member.desired and member.joining is None

    async def is_healthy(self, name: str) -> bool:
        """Its /health says so, in time."""
        try:
            status, _ = await self._get(self._upstreams[name], "/health")
        except OSError:
            return False
        return status == 200

    def abort(self, claim: SlotReservation[Any]) -> None:
        """A request was sent and is over before its end: free its slot when the replica has."""
        self._dispatcher.abort(claim, self._loop.time())
        self._start_polling(self._upstreams[claim.replica.name])

    async def close(self) -> None:
        """End all tasks and connections."""
        tasks = [
            task
            for member in self._upstreams.values()
            for task in (member.joining, member.polling)
            if task
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._upstreams.values():
            member.pool.close()

    def _start_polling(self, member: _Upstream) -> None:
        member.aborted.set()
        if member.polling is None:
            member.polling = self._loop.create_task(self._poll_released_slots(member))

    def _add(self, name: str, usable: bool) -> None:
        member = self._upstreams.get(name)
        if member is None:
            host, _, port = name.rpartition(":")
            host = host.strip("[]")
            member = _Upstream(name, host, int(port), Pool(host, int(port)), desired=False)
            self._upstreams[name] = member
        if usable and not member.desired:
            member.desired = True
            member.joining = self._loop.create_task(self._join(member))
        elif not usable and member.desired:
            self._withdraw(member)

    def _withdraw(self, member: _Upstream) -> None:
        member.desired = False
        # It gets nothing new from here, and each idle connection holds one of its HTTP threads.
        member.pool.max_idle = 0
        member.pool.drop_idle()
        if member.joining:
            member.joining.cancel()
            member.joining = None
        self._dispatcher.drain(member.name, self._loop.time())

    async def _rejoin(self, member: _Upstream, fault: UpstreamFailure) -> None:
        if fault.outlasts_health_check:
            await asyncio.sleep(
                ejection_seconds(member.consecutive_failures, self._timeouts.ejection)
            )
        await self._join(member)

    async def _join(self, member: _Upstream) -> None:
        told = ""
        for failures in itertools.count(1):
            try:
                slots, processing = await self._probe_new(member)
                break
            except (OSError, SlotsParseError) as error:
                if str(error) != told:
                    told = str(error)
                    _log.info("replica %s is not ready: %s", member.name, told or "no answer")
            await asyncio.sleep(self._timeouts.join.delay(failures))
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
            self._start_polling(member)
        self._on_freed()

    async def _probe_new(self, member: _Upstream) -> tuple[int, int]:
        """How many slots, and how many of them work on what did not come through here."""
        status, _ = await self._get(member, "/health")
        if status != 200:
            raise SlotsParseError(f"/health answers {status}")
        if self._slots is not None:
            return self._slots, 0
        known = self._dispatcher.replicas.get(member.name, Replica(member.name, 0))
        look = SlotProbe(known, self._loop.time())
        status, body = await self._get(member, "/slots")
        if status != 200:
            raise SlotsParseError(f"/slots answers {status}")
        slots = parse_slots(body)
        member.context = min(slot.n_ctx for slot in slots)
        return len(slots), look.foreign(processing(slots))

    async def _poll_released_slots(self, member: _Upstream) -> None:
        polls = 1
        while member.name in self._dispatcher.replicas:
            member.aborted.clear()
            look = SlotProbe(self._dispatcher.replicas[member.name], self._loop.time())
            if look.is_empty:
                break
            let_go = await self._released_slots(member, look)
            now = self._loop.time()
            for claim in look.timed_out(now, self._timeouts.slot_release):
                if claim not in let_go:
                    _log.warning("replica %s did not let go of a slot in time", member.name)
                    self._metrics.slot_release_timeouts.inc()
                    let_go.append(claim)
            for claim in let_go:
                self._metrics.slot_release_duration.observe(now - (claim.aborted_at or now))
                self._dispatcher.release(claim, now)
            if let_go:
                self._on_freed()
            try:
                async with asyncio.timeout(self._poll_delay(look, polls)):
                    await member.aborted.wait()
                polls = 1
            except TimeoutError:
                polls += 1
        member.polling = None

    def _poll_delay(self, look: SlotProbe, polls: int) -> float:
        backoff = self._timeouts.release_poll
        if look.only_adopted:
            # Those requests may run for minutes.
            backoff = replace(backoff, maximum=self._timeouts.adopted_poll)
        return backoff.delay(polls)

    async def _released_slots(self, member: _Upstream, look: SlotProbe) -> list[SlotHold]:
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
            self.eject(member.name, UpstreamFailure.REFUSED, str(error))
            count = 0
        except (OSError, SlotsParseError):
            return []
        return look.released(count)

    async def _get(self, member: _Upstream, path: str) -> tuple[int, bytes]:
        return await get(member.host, member.port, path, seconds=self._timeouts.response)
