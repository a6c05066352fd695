"""Leader election among the balancers of one server.

All of them accept requests. The holder of the Lease is the leader, and dispatches requests to
replicas. The standbys relay theirs to it, and probe it every second. The Lease changes hands

- when its holder releases it: it shuts down, and another balancer has probed it recently. It stops
  dispatching, waits until /slots counts everything that it has sent, and only then releases. If the
  API server rejects it, it responds to probes that it has released;
- when its holder does not respond: at once if connections are refused, else after
  `ElectionTimeouts.unresponsive`.

A new leader requests every replica's /slots before it dispatches to it, and counts what runs there
as busy. A holder whose process was suspended (a stopped container, a stalled host) dispatches
nothing before it has read that the Lease is still its own. While the API server is unreachable no
balancer can acquire the Lease, and the leader continues.

Anyone with the permission may edit the Lease. It names a balancer, and the EndpointSlices have the
balancers and their addresses (`peers.py`): a holder that is none of them is not followed, and the
leader writes its own name again. Nothing else is read from the Lease.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from slotkeeper.balancer.election.leader_probe import ElectionTimeouts, LeaderProbe, ProbeResult
from slotkeeper.balancer.election.lease import LeaseRecord, manifest
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.balancer.election.peers import Peer
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
    def become_standby(self, leader: str | None, proof: bytes = b"") -> None: ...  # noqa: D102
    def pause(self, paused: bool) -> None: ...  # noqa: D102
    def peer_lost(self, address: str) -> None: ...  # noqa: D102


class LeaderElection:
    """One balancer's part in the election. `lease_name`: namespace and name of the Lease."""

    def __init__(
        self,
        cluster: Cluster,
        lease_name: tuple[str, str],
        auth: PeerAuth,
        balancer: LeaderCallbacks,
        wall: Callable[[], datetime],
        timeouts: ElectionTimeouts | None = None,
    ) -> None:
        self.me = auth.peers.identity
        self.auth = auth
        self._peers = auth.peers
        self._cluster = cluster
        self._lease_name = lease_name
        self._balancer = balancer
        self._wall = wall
        self._timeouts = timeouts or ElectionTimeouts()
        self._loop = asyncio.get_running_loop()
        self.lease: LeaseRecord | None = None
        """The Lease as last read."""
        self._last_leader = ""  # name of the balancer that was last seen to lead
        self._followed: Peer | None = None  # that requests may have been relayed to
        self._missing_since: float | None = None  # since when it is no balancer of this server
        self._rejected = False  # the API server has rejected this balancer's last request
        self._successor: Peer | None = None  # the leader, where the Lease cannot be read
        self._probe = LeaderProbe(auth, self._timeouts)
        self._wakeup = asyncio.Event()
        self._shutting_down = self._retired = self._handing_over = self._released = False
        self._release_at = float("inf")  # when to try it
        self._candidates: dict[str, float] = {}  # last probe of each that would succeed this one
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

    def set_retired(self, retired: bool) -> None:
        """Leave the leadership to balancers that accept requests, or take part again."""
        if retired is not self._retired:
            self._retired = retired
            if not self._shutting_down:
                # The others may be retired too, which their next probe shows.
                delay = 2 * self._timeouts.poll if retired else float("inf")
                self._release_at = self._loop.time() + delay
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
            await self._write("", self.lease)

    def on_peer_probe(self, identity: str, *, candidate: bool) -> bool:
        """Note another balancer's probe; return whether this one is the leader.

        `candidate`: the other would succeed this one. To be called for verified balancers only.
        """
        now = self._loop.time()
        recent = now - 4 * self._timeouts.unresponsive
        self._candidates = {
            each: at for each, at in self._candidates.items() if at > recent and each != identity
        }
        if candidate and identity != self.me:
            self._candidates[identity] = now
            if self._leaving:
                self._wakeup.set()
        return self._balancer.is_leader and not (self._handing_over or self._released)

    @property
    def has_released(self) -> bool:
        """Whether another balancer may lead, though this one cannot write that to the Lease."""
        return self._handing_over and self._rejected

    @property
    def leader(self) -> Peer | None:
        """The holder of the Lease, if it is a balancer of this server."""
        if self._successor:
            return self._successor
        return self._peers.find(self.lease.holder) if self.lease else None

    @property
    def _leaving(self) -> bool:
        return self._shutting_down or self._retired

    @property
    def _silent_for(self) -> float:
        """Seconds since the last probe by a standby that would succeed this balancer."""
        return self._loop.time() - max(self._candidates.values(), default=float("-inf"))

    async def _step(self) -> float:
        """Do what is due; return the seconds until the next step if the Lease does not change."""
        if self._balancer.is_leader and not self._released:
            return await self._step_as_leader()
        if self._successor:
            return await self._step_behind(self._successor)
        if self.lease is None or self._released:
            return self._timeouts.poll
        # Before, the others would take a Lease with this balancer's name for an edited one.
        if self._peers.includes_me:
            try:
                return await self._step_as_standby(self.lease)
            except ApiError as error:
                _log.warning("cannot read the balancers: %s", error)
        return self._timeouts.retry

    # As a standby.

    async def _step_as_standby(self, lease: LeaseRecord) -> float:
        timeouts = self._timeouts
        leader = await self._leader_to_follow(lease)
        if leader is None or leader.identity == self.me:
            if leader is None and self._followed:
                return await self._step_without(self._followed, lease)
            await self._acquire(lease, clean=lease.released)
            return timeouts.poll
        self._missing_since = None
        result = await self._probe.probe(leader, candidate=not self._leaving)
        if self.lease != lease:
            return 0
        if result is ProbeResult.LEADING:
            self._last_leader_at = self._loop.time()
            self._last_leader = leader.identity
            self._followed = leader
            self._balancer.become_standby(leader.clients, self.auth.proof(leader.identity))
            return timeouts.poll
        self._balancer.become_standby(None)
        if lease.released or result is ProbeResult.RELEASED:
            await self._acquire(lease, clean=True)
        elif result is ProbeResult.DEAD:
            self._balancer.peer_lost(leader.clients)
            await self._acquire(lease, clean=False)
        return timeouts.retry

    async def _step_without(self, last: Peer, lease: LeaseRecord) -> float:
        """Succeed a leader whose pod was deleted, and whose address may be another pod's soon.

        A pod that was deleted by force may dispatch for a while.
        """
        now = self._loop.time()
        self._balancer.become_standby(None)
        self._missing_since = now if self._missing_since is None else self._missing_since
        result = await self._probe.probe(last, candidate=not self._leaving)
        late = now - self._missing_since >= self._timeouts.unresponsive
        if self.lease == lease and (result is ProbeResult.DEAD or late):
            self._followed = self._missing_since = None
            self._balancer.peer_lost(last.clients)
            await self._acquire(lease, clean=False)
        return self._timeouts.retry

    async def _step_behind(self, successor: Peer) -> float:
        """Relay to the balancer that has succeeded this one, or to a later one."""
        if await self._probe.probe(successor, candidate=False) is not ProbeResult.LEADING:
            self._balancer.become_standby(None)
            self._successor = await self._leading_candidate() or successor
            return self._timeouts.retry
        self._balancer.become_standby(successor.clients, self.auth.proof(successor.identity))
        return self._timeouts.poll

    async def _leader_to_follow(self, lease: LeaseRecord) -> Peer | None:
        """The holder. A Lease that names no balancer is new, released or edited: the last leader.

        That one may lead still: it is probed before the Lease is acquired. Raises ApiError where
        neither is known, and the balancers cannot be read.
        """
        last = self._peers.find(self._last_leader)
        try:
            return await self._peers.look_up(lease.holder, self._timeouts.api) or last
        except ApiError:
            if last is None:
                raise
            return last

    async def _acquire(self, lease: LeaseRecord, *, clean: bool) -> None:
        """Acquire the Lease and lead. `clean`: /slots counts all that the last holder sent."""
        began = self._loop.time()
        timeouts = self._timeouts
        # One that shuts down leaves the Lease to the others, unless requests are queued here and
        # there are no others.
        alone = self._balancer.has_queued and began - self._last_leader_at >= timeouts.handover
        if self._leaving and not alone:
            return
        if await self._write(self.me, lease) is None:
            return
        if not clean:
            await asyncio.sleep(timeouts.settle)
        if self._loop.time() - began >= timeouts.lease_validity and not await self._read():
            return  # this process was suspended: another may have acquired it meanwhile
        if self.lease is None or self.lease.holder != self.me:
            return
        self._last_leader = self.me
        _log.info("became leader (previous: %s)", lease.holder or "none")
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
        if (lease := self.lease) and lease.holder != self.me:
            balancer.pause(True)
            try:
                holder = await self._peers.look_up(lease.holder, timeouts.api)
            except ApiError as error:
                _log.warning("cannot read the balancers: %s", error)
                return timeouts.retry
            if holder:
                self._step_down(holder)
                return 0
            # It was edited, or was deleted and the operator has created it again.
            if await self._write(self.me, lease) is None:
                return timeouts.retry
        # Without a Lease no other balancer can be the leader either.
        balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
        balancer.pause(False)
        due = self._loop.time() >= self._release_at
        if lease and due and self._silent_for < timeouts.unresponsive:
            await self._hand_over()
            if not balancer.is_leader:
                return 0
        return timeouts.retry if missed else timeouts.poll

    async def _hand_over(self) -> None:
        timeouts = self._timeouts
        balancer = self._balancer
        if not await self._read():
            if self._rejected:
                await self._hand_over_without_lease()
            return  # the API server is unreachable: later
        if not self.lease or self.lease.holder != self.me:
            return
        await self._stop_dispatching()
        self._handing_over = True
        try:
            async with asyncio.timeout(timeouts.handover):
                # The write may have succeeded though its response was lost: nothing is dispatched
                # before that is clear.
                certain = bool(await self._write("", self.lease))
                while not (certain or await self._read()):  # noqa: ASYNC110 (polls the API server)
                    await asyncio.sleep(timeouts.retry)
                await self._acquired_by_another()
        except TimeoutError:
            _log.warning("no other balancer acquired the lease; continuing as leader")
            self._release_at = self._loop.time() + 5 * timeouts.handover
            free = self.lease
            if free is not None and not free.holder:
                await self._write(self.me, free)
        finally:
            self._handing_over = False
        lease = self.lease
        if lease is None or lease.holder == self.me:
            balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
            balancer.pause(False)
        elif holder := self._peers.find(lease.holder):
            _log.info("lease handed over")
            self._step_down(holder)
        else:
            balancer.lease_valid_until = self._loop.time()  # the next step acquires it

    async def _hand_over_without_lease(self) -> None:
        """Hand over though the API server rejects this balancer, and may accept the others.

        So it is after its ServiceAccount was deleted and created again. Otherwise this balancer
        would lead until it ends, with the replicas that it has last read.
        """
        timeouts = self._timeouts
        await self._stop_dispatching()
        self._handing_over = True
        try:
            async with asyncio.timeout(timeouts.handover):
                while (leader := await self._leading_candidate()) is None:  # noqa: ASYNC110 (polls)
                    await asyncio.sleep(timeouts.retry)
        except TimeoutError:
            _log.warning("no other balancer acquired the lease; continuing as leader")
            self._release_at = self._loop.time() + 5 * timeouts.handover
            self._balancer.lease_valid_until = self._loop.time() + timeouts.lease_validity
            self._balancer.pause(False)
        else:
            self._successor = leader
            self._step_down(leader)
        finally:
            self._handing_over = False

    async def _stop_dispatching(self) -> None:
        """Dispatch nothing more; wait until /slots counts everything that was sent."""
        balancer = self._balancer
        balancer.pause(True)
        deadline = self._loop.time() + self._timeouts.visibility
        while not balancer.all_visible and self._loop.time() < deadline:  # noqa: ASYNC110 (time is)
            await asyncio.sleep(0.01)

    async def _leading_candidate(self) -> Peer | None:
        for identity in list(self._candidates):
            peer = self._peers.find(identity)
            if peer and await self._probe.probe(peer, candidate=False) is ProbeResult.LEADING:
                return peer
        return None

    async def _acquired_by_another(self) -> None:
        while (lease := self.lease) and not lease.holder:
            self._wakeup.clear()
            await self._wakeup.wait()

    def _step_down(self, leader: Peer) -> None:
        _log.info("standby; leader is %s", leader.identity)
        self._last_leader_at = self._loop.time()
        self._last_leader = leader.identity
        # Requests are relayed once the new leader has verified this balancer, in the next step.
        self._balancer.become_standby(None)

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

    async def _write(self, holder: str, replaced: LeaseRecord) -> LeaseRecord | None:
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
            self._rejected = isinstance(error, ApiError) and error.status in {401, 403}
            _log.warning("cannot read the lease: %s", str(error) or "API server timed out")
            return False
        self._rejected = False
        if not unless_changed or self.lease == known:
            self._on_lease(LeaseRecord.read(lease) if lease else None)
        return True

    def _on_lease(self, lease: LeaseRecord | None) -> None:
        if lease == self.lease:
            return
        self.lease = lease
        self._probe.reset()
        self._wakeup.set()
