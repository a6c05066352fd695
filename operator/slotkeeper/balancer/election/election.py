"""Leader election among the balancers of one server.

All of them accept requests. The holder of the Lease is the leader, and dispatches requests to
replicas. The standbys relay theirs to it, and probe it every second. The Lease changes hands

- when its holder releases it: it shuts down, and another balancer has probed it recently. It stops
  dispatching, waits until /slots counts everything that it has sent, and only then releases;
- when its holder does not respond: at once if connections are refused, else after
  `ElectionTimeouts.unresponsive`.

A new leader requests every replica's /slots before it dispatches to it, and counts what runs there
as busy. A holder whose process was suspended (a stopped container, a stalled host) dispatches
nothing before it has read that the Lease is still its own. While the API server is unreachable no
balancer can acquire the Lease, and the leader continues.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.balancer.election.leader_probe import ElectionTimeouts, LeaderProbe, ProbeResult
from slotkeeper.balancer.election.lease import LeaseRecord, Peer, manifest
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict
from slotkeeper.kube.kinds import LEASES
from slotkeeper.kube.watch import list_and_watch

_log = logging.getLogger(__name__)


class LeaderCallbacks(Protocol):
    """What follows the election: see Proxy."""

    is_leader: bool
    lease_valid_until: float

    @property
    def all_visible(self) -> bool: ...  # noqa: D102 (see Proxy)
    @property
    def has_queued(self) -> bool: ...  # noqa: D102
    def become_leader(self) -> None: ...  # noqa: D102
    def become_standby(self, leader: str | None) -> None: ...  # noqa: D102
    def pause(self, paused: bool) -> None: ...  # noqa: D102
    def peer_lost(self, address: str) -> None: ...  # noqa: D102
    def set_blocked(self, blocker: StartBlocker | None) -> None: ...  # noqa: D102


class LeaderElection:
    """One balancer's part in the election. `lease_name`: namespace and name of the Lease."""

    def __init__(
        self,
        cluster: Cluster,
        lease_name: tuple[str, str],
        me: Peer,
        balancer: LeaderCallbacks,
        wall: Callable[[], datetime],
        timeouts: ElectionTimeouts | None = None,
    ) -> None:
        self.me = me
        self._cluster = cluster
        self._lease_name = lease_name
        self._balancer = balancer
        self._wall = wall
        self._timeouts = timeouts or ElectionTimeouts()
        self._loop = asyncio.get_running_loop()
        self.lease: LeaseRecord | None = None
        """The Lease as last read."""
        self._last_holder: Peer | None = None
        self._probe = LeaderProbe(me, self._timeouts)
        self._wakeup = asyncio.Event()
        self._shutting_down = self._released = False
        self._release_at = float("inf")  # when to try it
        self._last_probe_at = float("-inf")  # by a standby that would succeed this balancer
        self._last_leader_at = self._loop.time()  # when any balancer was last seen to be the leader
        balancer.become_standby(None)

    async def run(self) -> None:
        """Follow the Lease, as leader or as standby. Never ends."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_lease())
            while True:
                delay = await self._step()
                self._wakeup.clear()
                try:
                    async with asyncio.timeout(delay):
                        await self._wakeup.wait()
                except TimeoutError:
                    pass

    def shut_down(self) -> None:
        """Release the Lease as soon as there is a successor."""
        self._shutting_down = True
        self._release_at = self._loop.time()
        self._wakeup.set()

    async def wait_handover(self, seconds: float) -> None:
        """Wait until another balancer leads or no standby is left, at most for `seconds`.

        Until then the standbys relay to this balancer, which must accept their requests.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._balancer.is_leader and self._silent_for < self._timeouts.unresponsive:  # noqa: ASYNC110
                    await asyncio.sleep(self._timeouts.retry)
        except TimeoutError:
            _log.warning("no other balancer acquired the lease in time")

    async def release(self) -> None:
        """Release the Lease though there is no successor yet. Ignores API errors."""
        if self._balancer.is_leader and self.lease and self.lease.holder == self.me:
            self._released = True  # or the watch would show a free Lease to acquire
            self._balancer.pause(True)
            await self._write(None, self.lease)

    def on_peer_probe(self, candidate: str) -> bool:
        """Note another balancer's probe; return whether this one is the leader.

        `candidate`: the other's identity if it would succeed this one, else empty.
        """
        if candidate not in {"", self.me.identity}:
            self._last_probe_at = self._loop.time()
            if self._shutting_down:
                self._wakeup.set()
        return self._balancer.is_leader

    @property
    def _silent_for(self) -> float:
        """Seconds since the last probe by a standby that would succeed this balancer."""
        return self._loop.time() - self._last_probe_at

    async def _step(self) -> float:
        """Do what is due; return the seconds until the next step if the Lease does not change."""
        if self._balancer.is_leader and not self._released:
            return await self._step_as_leader()
        if self.lease and not self._released:
            return await self._step_as_standby(self.lease)
        return self._timeouts.poll

    # As a standby.

    async def _step_as_standby(self, lease: LeaseRecord) -> float:
        timeouts = self._timeouts
        if lease.holder and lease.holder.identity == self.me.identity:
            await self._acquire(lease, clean=False)
            return timeouts.poll
        # A Lease that is new or was edited names no leader: the last holder still is the leader.
        holder = lease.holder or (None if lease.released else self._last_holder)
        if holder is None or holder == self.me:
            await self._acquire(lease, clean=lease.released)
            return timeouts.poll
        result = await self._probe.probe(holder, candidate=not self._shutting_down)
        if self.lease != lease:
            return 0
        if result is ProbeResult.LEADING:
            self._last_leader_at = self._loop.time()
            self._balancer.become_standby(holder.clients)
            return timeouts.poll
        self._balancer.become_standby(None)
        if result is ProbeResult.DEAD:
            self._balancer.peer_lost(holder.clients)
            await self._acquire(lease, clean=False)
        return timeouts.retry

    async def _acquire(self, lease: LeaseRecord, *, clean: bool) -> None:
        """Acquire the Lease and lead. `clean`: /slots counts all that the last holder sent."""
        began = self._loop.time()
        timeouts = self._timeouts
        # One that shuts down leaves the Lease to the others, unless requests are queued here and
        # there are no others.
        alone = self._balancer.has_queued and began - self._last_leader_at >= timeouts.handover
        if self._shutting_down and not alone:
            return
        if await self._write(self.me, lease) is None:
            return
        if not clean:
            await asyncio.sleep(timeouts.settle)
        if self._loop.time() - began >= timeouts.lease_validity and not await self._read():
            return  # this process was suspended: another may have acquired it meanwhile
        if self.lease is None or self.lease.holder != self.me:
            return
        previous = lease.holder.identity if lease.holder else "none"
        _log.info("became leader (previous: %s)", previous)
        self._balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
        self._balancer.become_leader()

    # As the leader.

    async def _step_as_leader(self) -> float:
        balancer = self._balancer
        timeouts = self._timeouts
        late = self._loop.time() >= balancer.lease_valid_until
        # A standby that no longer probes has ended, or cannot reach this leader and succeeds it.
        missed = timeouts.lease_validity <= self._silent_for < 4 * timeouts.unresponsive
        if late or missed:
            await self._read()
        lease = self.lease
        if lease and lease.holder is None:
            # It was deleted, and the operator has created it again.
            await self._write(self.me, lease)
            lease = self.lease
        if lease and lease.holder != self.me:
            self._step_down(lease)
            return timeouts.poll
        # Without a Lease no other balancer can be the leader either.
        balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
        balancer.pause(False)
        due = self._loop.time() >= self._release_at
        if lease and due and self._silent_for < timeouts.unresponsive:
            await self._hand_over()
        return timeouts.retry if missed else timeouts.poll

    async def _hand_over(self) -> None:
        timeouts = self._timeouts
        balancer = self._balancer
        if not await self._read() or not self.lease or self.lease.holder != self.me:
            return  # the API server is unreachable: later
        balancer.pause(True)
        deadline = self._loop.time() + timeouts.visibility
        while not balancer.all_visible and self._loop.time() < deadline:  # noqa: ASYNC110 (time is)
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(timeouts.handover):
                # The write may have succeeded though its response was lost: nothing is dispatched
                # before that is clear.
                certain = bool(await self._write(None, self.lease))
                while not (certain or await self._read()):  # noqa: ASYNC110 (polls the API server)
                    await asyncio.sleep(timeouts.retry)
                await self._acquired_by_another()
        except TimeoutError:
            _log.warning("no other balancer acquired the lease; continuing as leader")
            self._release_at = self._loop.time() + 5 * timeouts.handover
            free = self.lease
            if free is not None and free.holder is None:
                await self._write(self.me, free)
        lease = self.lease
        if lease is None or lease.holder == self.me:
            balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
            balancer.pause(False)
        elif lease.holder:
            _log.info("lease handed over")
            self._step_down(lease)
        else:
            balancer.lease_valid_until = self._loop.time()  # the next step acquires it

    async def _acquired_by_another(self) -> None:
        while (lease := self.lease) and lease.holder is None:
            self._wakeup.clear()
            await self._wakeup.wait()

    def _step_down(self, lease: LeaseRecord) -> None:
        leader = lease.holder
        _log.info("standby; leader is %s", leader.identity if leader else "unknown")
        self._last_leader_at = self._loop.time()
        # A balancer that could acquire the Lease can accept requests.
        self._balancer.become_standby(leader.clients if leader else None)

    # The Lease.

    async def _watch_lease(self) -> None:
        namespace, name = self._lease_name
        async for leases in list_and_watch(self._cluster, LEASES, namespace, name=name):
            item = leases.get(name)
            lease = LeaseRecord.read(item) if item else None
            if lease is None:
                _log.warning(
                    "lease %s/%s not found: no balancer can become leader", namespace, name
                )
            if lease is None or self.lease is None or lease.is_newer_than(self.lease):
                self._on_lease(lease)
            else:
                # An event from before the last write, or the API server's data was restored from a
                # backup, and versions went back.
                await self._read(unless_changed=True)

    async def _write(self, holder: Peer | None, replaced: LeaseRecord) -> LeaseRecord | None:
        """Set the holder. None if another balancer was first, or the API server is unreachable."""
        try:
            async with asyncio.timeout(self._timeouts.api):
                lease = manifest(*self._lease_name, holder, replaced, self._wall())
                written = LeaseRecord.read(await self._cluster.apply(lease))
        except Conflict:
            await self._read()
            return None
        except (ApiError, TimeoutError) as error:
            _log.warning("cannot write the lease: %s", str(error) or "API server timed out")
            return None
        self._on_lease(written)
        return written

    async def _read(self, *, unless_changed: bool = False) -> bool:
        """Read the Lease; return whether the API server responded.

        `unless_changed`: a response that arrives after another one is ignored. It may be older.
        """
        known = self.lease
        try:
            async with asyncio.timeout(self._timeouts.api):
                lease = await self._cluster.get(LEASES, *self._lease_name)
        except (ApiError, TimeoutError) as error:
            _log.warning("cannot read the lease: %s", str(error) or "API server timed out")
            return False
        if not unless_changed or self.lease == known:
            self._on_lease(LeaseRecord.read(lease) if lease else None)
        return True

    def _on_lease(self, lease: LeaseRecord | None) -> None:
        if lease == self.lease:
            return
        self.lease = lease
        self._balancer.set_blocked(lease.blocker if lease else None)
        self._last_holder = (lease.holder if lease else None) or self._last_holder
        self._probe.reset()
        self._wakeup.set()
