"""The replicas of the server: health checks, ejection, and release of aborted requests' slots."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from slotkeeper.backoff import Backoff
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.slots import MAX_BYTES, SlotsParseError, parse_slots, processing
from slotkeeper.scheduling import (
    AdoptedSlot,
    Dispatcher,
    Replica,
    SlotHold,
    SlotProbe,
    SlotReservation,
)
from slotkeeper.scheduling.ejection import UpstreamFailure, ejection_seconds
from slotkeeper.wire.client import Pool
from slotkeeper.wire.http_get import get

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaTimeouts:
    """Timeouts and intervals for replicas, in seconds."""

    join: Backoff = Backoff(0.02, 1.0)  # noqa: RUF009 (frozen)
    """Between two probes of a replica that is not ready yet."""
    response: float = 2.0
    """For a response of /health or /slots. A late one means busy: it is requested again."""
    release_poll: Backoff = Backoff(0.005, 0.05)  # noqa: RUF009 (frozen)
    """Between two polls of /slots for the slot of an aborted request: the first is as short as a
    quick decode step."""
    adopted_poll: float = 0.2
    """The maximum of that while only requests are polled for that another balancer sent."""
    slot_release: float = 30.0
    """After this an aborted request's slot counts as free, whatever /slots reports: some versions
    of llama-server complete a request whose client has disconnected."""
    ejection: Backoff = Backoff(0.5, 30.0)  # noqa: RUF009 (frozen)
    """Ejection time of a replica that passes its health check and fails again."""
    stall: float = 30.0
    """Without a byte on any of its requests for this long, a replica's /health and /slots are
    requested."""
    stall_check: float = 1.0
    """Between two checks for such bytes."""
    wedged: float = 300.0
    """Without a byte and without a response of /slots for this long, a replica counts as wedged. A
    slow CPU computes one batch for minutes, in which /slots does not respond."""
    unresponsive: float = 120.0
    """Without any sign of life for this long, requests that wait for their first byte fail."""
    ending: float = 1.0
    """Until a replica that closed a connection is reported as being deleted, if it is."""
    restarted: float = 5.0
    """Until it is reported as not ready, if its process has ended."""


@dataclass(frozen=True, slots=True)
class Unresponsive:
    """Why a replica is considered to process nothing."""

    reason: str
    since: float
    """When it last gave a sign of life, which for a wedged one its /health is not."""
    idle_since: float
    """When it last sent a byte, or responded on /slots."""


class AfterPriming(Enum):
    """What a new replica does after priming."""

    IDLE = auto()
    COMPUTING = auto()
    """It may be computing still, in one slot."""
    FAILED = auto()
    """It did not respond."""


async def _no_priming(_name: str) -> AfterPriming:
    return AfterPriming.IDLE


@dataclass(slots=True, eq=False)
class _Upstream:
    name: str
    host: str
    port: int
    pool: Pool
    desired: bool = True
    ending: bool = False  # deleted or terminating
    unresponsive: "Unresponsive | None" = None
    context: int = 0
    speculative: bool = True  # or not known
    completed: int = 0
    consecutive_failures: int = 0  # since its last complete response
    joining: asyncio.Task[None] | None = None  # not in rotation before it is done
    polling: asyncio.Task[None] | None = None
    aborted: asyncio.Event = field(default_factory=asyncio.Event)


class ReplicaSet:
    """The replicas by name (`host:port`).

    `slots`: of each replica, or None to read its /slots. `on_freed` is called when a slot may have
    become free.
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
        self._targets_changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.on_joined: Callable[[str], None] = lambda _: None
        """Called with the name of a replica that has become ready, before it is primed."""
        self.prime: Callable[[str], Awaitable[AfterPriming]] = _no_priming
        """Prepares a replica that has become ready, before it gets requests."""
        self.on_refused: Callable[[str], None] = lambda _: None
        """Called with the name of a replica that has ended while aborted requests ran on it."""

    @property
    def names(self) -> list[str]:
        """All replicas."""
        return list(self._upstreams)

    @property
    def without_speculation(self) -> tuple[str, ...]:
        """Those that have become ready without speculative decoding."""
        return tuple(name for name in self.joined if not self._upstreams[name].speculative)

    @property
    def joined(self) -> list[str]:
        """Those that have become ready, and are not ejected."""
        return [name for name, upstream in self._upstreams.items() if upstream.joining is None]

    async def request(self, name: str, path: str) -> bytes:
        """Return the body of a replica's response to a GET.

        Raises OSError unless it responds in time and with status 200.
        """
        upstream = self._upstreams.get(name)
        if upstream is None:
            raise OSError("it has been removed")
        status, body = await self._get(upstream, path)
        if status != 200:
            raise OSError(f"{path} returned {status}")
        return body

    @property
    def contexts(self) -> dict[str, int]:
        """Tokens of context in a slot, by replica; 0 where unknown."""
        return {upstream.name: upstream.context for upstream in self._upstreams.values()}

    def pool(self, name: str) -> Pool:
        """Return the connections to a replica."""
        return self._upstreams[name].pool

    def set_targets(self, targets: Mapping[str, bool], terminating: Collection[str] = ()) -> None:
        """Set the replicas; False: it gets no new requests, and completes its current ones.

        `terminating` are those whose pod is being deleted.
        """
        for name, usable in targets.items():
            self._add(name, usable)
        for name, upstream in list(self._upstreams.items()):
            upstream.ending = name in terminating or name not in targets
            if name in targets:
                continue
            if upstream.desired:
                self._withdraw(upstream)
            self._dispatcher.remove(name, self._loop.time())
            if name not in self._dispatcher.replicas:
                del self._upstreams[name]
                upstream.pool.close()
        self._targets_changed.set()
        self._targets_changed = asyncio.Event()
        self._on_freed()

    def is_ending(self, name: str) -> bool:
        """Whether a replica is being deleted or drained, or was."""
        upstream = self._upstreams.get(name)
        return upstream is None or upstream.ending

    async def wait_ending(self, name: str) -> bool:
        """Return whether a replica is reported as ending within the next moment."""
        return await self._reported(lambda: self.is_ending(name), self._timeouts.ending)

    async def wait_restarted(self, name: str) -> bool:
        """Return whether a replica is reported as not ready soon, without being deleted.

        A new process of a small model accepts connections after a third of a second, but its pod is
        not ready until its probes have succeeded.
        """

        def is_not_ready() -> bool:
            upstream = self._upstreams.get(name)
            return upstream is None or not upstream.desired

        reported = await self._reported(is_not_ready, self._timeouts.restarted)
        return reported and not self.is_ending(name)

    async def _reported(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Return whether a change of the endpoints makes a condition true within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._targets_changed.wait()
        except TimeoutError:
            return False
        return True

    async def accepts_connections(self, name: str) -> bool:
        """Whether a replica's process accepts a connection."""
        upstream = self._upstreams.get(name)
        if upstream is None:
            return False
        try:
            connection = await upstream.pool.connect()
        except OSError:
            return False
        connection.abort()
        return True

    def eject(self, name: str, failure: UpstreamFailure, reason: str) -> None:
        """Send a failed replica no new requests until it passes its health check again."""
        upstream = self._upstreams.get(name)
        if upstream is None or not upstream.desired or upstream.joining:
            return
        _log.warning("replica %s ejected (%s): %s", name, failure.value, reason)
        self._metrics.ejections.inc(failure.value)
        self._dispatcher.drain(name, self._loop.time())
        upstream.pool.drop_idle()
        upstream.consecutive_failures += failure.outlasts_health_check
        upstream.joining = self._loop.create_task(self._rejoin(upstream, failure))

    def completed(self, name: str) -> None:
        """Count a complete response of a replica."""
        if upstream := self._upstreams.get(name):
            upstream.completed += 1
            upstream.consecutive_failures = 0

    def completed_count(self, name: str) -> int:
        """Return the number of complete responses of a replica."""
        return self._upstreams[name].completed

    def in_rotation(self, name: str) -> bool:
        """Whether a replica gets new requests."""
        upstream = self._upstreams.get(name)
        return upstream is not None and upstream.desired and upstream.joining is None

    def is_watched(self, name: str) -> bool:
        """Whether a replica's signs of life matter: it is not ending, nor known not to respond."""
        upstream = self._upstreams.get(name)
        return upstream is not None and not (
            upstream.ending or upstream.joining or upstream.unresponsive
        )

    @property
    def unresponsive(self) -> dict[str, Unresponsive]:
        """The replicas that do not respond, until they are ready again."""
        return {
            upstream.name: upstream.unresponsive
            for upstream in self._upstreams.values()
            if upstream.unresponsive
        }

    def set_unresponsive(self, name: str, failure: UpstreamFailure, found: Unresponsive) -> None:
        """Eject a replica that processes nothing."""
        if upstream := self._upstreams.get(name):
            upstream.unresponsive = found
            self.eject(name, failure, found.reason)

    async def responds(self, name: str, path: str) -> bool:
        """Whether a replica responds in time, with status 200. It may have left."""
        upstream = self._upstreams.get(name)
        try:
            status, _ = await self._get(upstream, path) if upstream else (0, b"")
        except OSError:
            return False
        return status == 200

    def abort(self, reservation: SlotReservation[Any]) -> None:
        """Free the slots of a request that was sent and ended early, when the replica has."""
        self._dispatcher.abort(reservation, self._loop.time())
        self._start_polling(self._upstreams[reservation.replica.name])

    def has_adopted(self, name: str) -> bool:
        """Whether a replica processes requests that were not sent from here."""
        replica = self._dispatcher.replicas.get(name)
        return any(isinstance(hold, AdoptedSlot) for hold in (replica.holds if replica else ()))

    def aborted_requests(self, name: str) -> list[Any]:
        """Return the requests that ended early here, and may still be processed by a replica."""
        replica = self._dispatcher.replicas.get(name)
        return [
            hold.queued.request
            for hold in (replica.holds if replica else ())
            if isinstance(hold, SlotReservation) and hold.aborted_at is not None
        ]

    async def close(self) -> None:
        """Stop all tasks and close all connections."""
        tasks = [
            task
            for upstream in self._upstreams.values()
            for task in (upstream.joining, upstream.polling)
            if task
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for upstream in self._upstreams.values():
            upstream.pool.close()

    # Joining and leaving.

    def _add(self, name: str, usable: bool) -> None:
        upstream = self._upstreams.get(name)
        if upstream is None:
            host, _, port = name.rpartition(":")
            host = host.strip("[]")
            upstream = _Upstream(name, host, int(port), Pool(host, int(port)), desired=False)
            self._upstreams[name] = upstream
        if usable and not upstream.desired:
            upstream.desired = True
            upstream.joining = self._loop.create_task(self._join(upstream))
        elif not usable and upstream.desired:
            self._withdraw(upstream)

    def _withdraw(self, upstream: _Upstream) -> None:
        upstream.desired = False
        # It gets no new requests, and each idle connection occupies one of its HTTP threads.
        upstream.pool.max_idle = 0
        upstream.pool.drop_idle()
        if upstream.joining:
            upstream.joining.cancel()
            upstream.joining = None
        self._dispatcher.drain(upstream.name, self._loop.time())

    async def _rejoin(self, upstream: _Upstream, failure: UpstreamFailure) -> None:
        if failure.outlasts_health_check:
            await asyncio.sleep(
                ejection_seconds(upstream.consecutive_failures, self._timeouts.ejection)
            )
        await self._join(upstream)

    async def _join(self, upstream: _Upstream) -> None:
        slots, busy = await self._wait_ready(upstream)
        self.on_joined(upstream.name)
        primed = await self.prime(upstream.name)
        if primed is AfterPriming.FAILED:
            slots, busy = await self._wait_ready(upstream)
        upstream.joining = upstream.unresponsive = None
        upstream.pool.max_idle = slots
        now = self._loop.time()
        self._dispatcher.add(upstream.name, slots, now)
        self._dispatcher.adopt(upstream.name, busy, now)
        if primed is AfterPriming.COMPUTING:
            self._dispatcher.occupy(upstream.name, now)
        _log.info("replica %s ready: %d slots, %d busy", upstream.name, slots, busy)
        if busy or primed is AfterPriming.COMPUTING:
            self._start_polling(upstream)
        self._on_freed()

    async def _wait_ready(self, upstream: _Upstream) -> tuple[int, int]:
        """Return the number of slots, and of those with requests that were not sent from here."""
        last_reason = ""
        for failures in itertools.count(1):
            try:
                return await self._probe_new(upstream)
            except (OSError, SlotsParseError) as error:
                reason = describe(error)
                if reason != last_reason:
                    last_reason = reason
                    _log.info("replica %s not ready: %s", upstream.name, reason)
            await asyncio.sleep(self._timeouts.join.delay(failures))
        raise AssertionError("unreachable: the loop has no end")

    async def _probe_new(self, upstream: _Upstream) -> tuple[int, int]:
        status, _ = await self._get(upstream, "/health")
        if status != 200:
            raise SlotsParseError(f"/health returned {status}")
        if upstream.unresponsive:
            upstream.unresponsive = replace(upstream.unresponsive, since=self._loop.time())
        if self._slots is not None:
            return self._slots, 0
        replica = self._dispatcher.replicas.get(upstream.name, Replica(upstream.name, 0))
        probe = SlotProbe(replica, self._loop.time())
        status, body = await self._get(upstream, "/slots")
        if status != 200:
            raise SlotsParseError(f"/slots returned {status}")
        slots = parse_slots(body)
        upstream.context = min(slot.n_ctx for slot in slots)
        upstream.speculative = all(slot.speculative for slot in slots)
        return len(slots), probe.foreign(processing(slots))

    # Release of slots.

    def _start_polling(self, upstream: _Upstream) -> None:
        upstream.aborted.set()
        if upstream.polling is None:
            upstream.polling = self._loop.create_task(self._poll_released_slots(upstream))

    async def _poll_released_slots(self, upstream: _Upstream) -> None:
        polls = 1
        while upstream.name in self._dispatcher.replicas:
            upstream.aborted.clear()
            probe = SlotProbe(self._dispatcher.replicas[upstream.name], self._loop.time())
            if probe.is_empty:
                break
            released = await self._released_slots(upstream, probe)
            now = self._loop.time()
            for hold in probe.timed_out(now, self._timeouts.slot_release):
                if hold not in released:
                    _log.warning("replica %s: slot release timed out", upstream.name)
                    self._metrics.slot_release_timeouts.inc()
                    released.append(hold)
            for hold in released:
                self._metrics.slot_release_duration.observe(now - (hold.aborted_at or now))
                self._dispatcher.release(hold, now)
            if released:
                self._on_freed()
            try:
                async with asyncio.timeout(self._poll_delay(probe, polls)):
                    await upstream.aborted.wait()
                polls = 1
            except TimeoutError:
                polls += 1
        upstream.polling = None

    def _poll_delay(self, probe: SlotProbe, polls: int) -> float:
        backoff = self._timeouts.release_poll
        if probe.only_adopted:
            # Those requests may run for minutes.
            backoff = replace(backoff, maximum=self._timeouts.adopted_poll)
        return backoff.delay(polls)

    async def _released_slots(self, upstream: _Upstream, probe: SlotProbe) -> list[SlotHold]:
        try:
            status, body = await self._get(upstream, "/slots")
            if status in {404, 501} and self._slots is not None:
                # Without /slots the closed connection is the only sign.
                busy = 0
            elif status == 200:
                busy = processing(parse_slots(body))
            else:
                return []
        except ConnectionRefusedError as error:
            # The process has ended, and its slots with it.
            self.on_refused(upstream.name)
            self.eject(upstream.name, UpstreamFailure.REFUSED, describe(error))
            busy = 0
        except (OSError, SlotsParseError):
            return []
        return probe.released(busy)

    async def _get(self, upstream: _Upstream, path: str) -> tuple[int, bytes]:
        return await get(
            upstream.host,
            upstream.port,
            path,
            seconds=self._timeouts.response,
            max_bytes=MAX_BYTES,
        )
