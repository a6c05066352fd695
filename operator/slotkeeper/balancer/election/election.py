"""Several balancers of one server: one hands out the slots, and when it ends another goes on.

All of them take requests. The one that holds the Lease leads: it hands out the slots. The others
relay what they get to it, and ask it each second whether it is there. So a Lease changes hands

- when its holder gives it back, because it was told to end and another one has asked for it of
  late: it hands out nothing from then on, waits until /slots counts all that it has sent, and only
  then lets go;
- when its holder does not answer: at once where nobody listens any more, else after
  `Patience.silent`.

Whoever takes the Lease asks every replica's /slots before it gives it anything, and counts what
runs there as held. A holder whose process stood still (a stopped container, a stalled host) hands
out nothing before it has seen that the Lease is still its own. While the API server is away nobody
can take the Lease, and the holder goes on.
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
    """What is led: see Proxy."""

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
    """One balancer among those of its server. `place`: namespace and name of the Lease."""

    def __init__(
        self,
        cluster: Cluster,
        place: tuple[str, str],
        me: Peer,
        balancer: LeaderCallbacks,
        wall: Callable[[], datetime],
        timeouts: ElectionTimeouts | None = None,
    ) -> None:
        self.me = me
        self._cluster = cluster
        self._place = place
        self._balancer = balancer
        self._wall = wall
        self._timeouts = timeouts or ElectionTimeouts()
        self._loop = asyncio.get_running_loop()
        self.lease: LeaseRecord | None = None
        """The Lease as it was last read."""
        self._last: Peer | None = None  # the last holder that there was
        self._probe = LeaderProbe(me, self._timeouts)
        self._wakeup = asyncio.Event()
        self._ending = self._released = False
        self._release_at = float("inf")  # when to try it
        self._last_probe_at = float("-inf")  # when another last asked, and would take over
        self._last_leader_at = self._loop.time()  # when somebody was last known to lead
        balancer.become_standby(None)

    async def run(self) -> None:
        """Lead or stand by, as the Lease says. Never ends."""
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._follow())
            while True:
                pause = await self._step()
                self._wakeup.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._wakeup.wait()
                except TimeoutError:
                    pass

    def end(self) -> None:
        """This balancer is to end: give the Lease to whoever asks for it."""
        self._ending = True
        self._release_at = self._loop.time()
        self._wakeup.set()

    async def wait_handover(self, seconds: float) -> None:
        """Wait until another leads, or none asks to: at most for `seconds`.

        Until then the others' requests come here, and must find somebody who takes them.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._balancer.is_leader and self._silent_for < self._timeouts.unresponsive:  # noqa: ASYNC110
                    await asyncio.sleep(self._timeouts.retry)
        except TimeoutError:
            _log.warning("nobody took the lease over in time")

    async def release(self) -> None:
        """Nobody took over: leave the Lease to whoever comes; quiet where that fails."""
        if self._balancer.is_leader and self.lease and self.lease.holder == self.me:
            self._released = True  # before the watch says that it is free, which is no news then
            self._balancer.pause(True)
            await self._write(None, self.lease)

    def on_peer_probe(self, by: str) -> bool:
        """Another balancer asks, `by` its name where it would take over; whether this one leads."""
        if by not in {"", self.me.identity}:
            self._last_probe_at = self._loop.time()
            if self._ending:
                self._wakeup.set()
        return self._balancer.is_leader

    @property
    def _silent_for(self) -> float:
        """Seconds since another asked that would take over."""
        return self._loop.time() - self._last_probe_at

    async def _follow(self) -> None:
        namespace, name = self._place
        async for leases in list_and_watch(self._cluster, LEASES, namespace, name=name):
            lease = leases.get(name)
            held = LeaseRecord.read(lease) if lease else None
            known = self.lease
            if held is None:
                _log.warning("there is no lease %s/%s: nobody can begin to lead", *self._place)
            # What was read before the last write here comes later than that write's answer.
            if held is None or known is None or held.is_newer_than(known):
                self._on_lease(held)

    async def _step(self) -> float:
        """Do what is due; how many seconds until the next look without news."""
        if self._balancer.is_leader and not self._released:
            return await self._lead()
        if self.lease and not self._released:
            return await self._stand_by(self.lease)
        return self._timeouts.poll

    # As one that stands by.

    async def _stand_by(self, held: LeaseRecord) -> float:
        patience = self._timeouts
        if held.holder and held.holder.identity == self.me.identity:
            await self._acquire(held, clean=False)
            return patience.poll
        # A Lease that is new or was edited says nothing of who leads: whoever did knows.
        holder = held.holder or (None if held.released else self._last)
        if holder is None or holder == self.me:
            await self._acquire(held, clean=held.released)
            return patience.poll
        answer = await self._probe.probe(holder, would_follow=not self._ending)
        if self.lease != held:
            return 0
        if answer is ProbeResult.LEADING:
            self._last_leader_at = self._loop.time()
            self._balancer.become_standby(holder.clients)
            return patience.poll
        self._balancer.become_standby(None)
        if answer is ProbeResult.DEAD:
            self._balancer.peer_lost(holder.clients)
            await self._acquire(held, clean=False)
        return patience.retry

    async def _acquire(self, held: LeaseRecord, *, clean: bool) -> None:
        began = self._loop.time()
        patience = self._timeouts
        # One that ends leaves it to the others. If there are none, what waits here must not.
        left_alone = self._balancer.has_queued and began - self._last_leader_at >= patience.handover
        if self._ending and not left_alone:
            return
        if await self._write(self.me, held) is None:
            return
        if not clean:
            await asyncio.sleep(patience.settle)
        if self._loop.time() - began >= patience.lease_validity and not await self._read():
            return  # this process stood still: another may have taken it meanwhile
        if self.lease is None or self.lease.holder != self.me:
            return
        before = held.holder.identity if held.holder else "nobody"
        _log.info("handing out the slots from now on, after %s", before)
        self._balancer.lease_valid_until = self._loop.time() + patience.lease_validity
        self._balancer.become_leader()

    # As the one that leads.

    async def _lead(self) -> float:
        balancer = self._balancer
        patience = self._timeouts
        late = self._loop.time() >= balancer.lease_valid_until
        # Whoever asked and asks no more is gone, or cannot reach this one and takes over.
        missed = patience.lease_validity <= self._silent_for < 4 * patience.unresponsive
        if late or missed:
            await self._read()
        held = self.lease
        if held and held.holder is None:
            # Somebody deleted it, and the operator made it anew.
            await self._write(self.me, held)
            held = self.lease
        if held and held.holder != self.me:
            self._step_down(held)
            return patience.poll
        # Where there is no Lease nobody else can lead either.
        balancer.lease_valid_until = self._loop.time() + patience.lease_validity
        balancer.pause(False)
        due = self._loop.time() >= self._release_at
        if held and due and self._silent_for < patience.unresponsive:
            await self._release()
        return patience.retry if missed else patience.poll

    async def _release(self) -> None:
        patience = self._timeouts
        balancer = self._balancer
        if not await self._read() or not self.lease or self.lease.holder != self.me:
            return  # the API server is away: not now
        balancer.pause(True)
        deadline = self._loop.time() + patience.visibility
        while not balancer.all_visible and self._loop.time() < deadline:  # noqa: ASYNC110 (time is)
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(patience.handover):
                # It may be written though no answer came: nothing is handed out before that is
                # known.
                known = bool(await self._write(None, self.lease))
                while not (known or await self._read()):  # noqa: ASYNC110 (the API server says)
                    await asyncio.sleep(patience.retry)
                await self._acquired_by_another()
        except TimeoutError:
            _log.warning("nobody took the lease: going on")
            self._release_at = self._loop.time() + 5 * patience.handover
            free = self.lease
            if free is not None and free.holder is None:
                await self._write(self.me, free)
        held = self.lease
        if held is None or held.holder == self.me:
            balancer.lease_valid_until = self._loop.time() + patience.lease_validity
            balancer.pause(False)
        elif held.holder:
            _log.info("gave the lease back")
            self._step_down(held)
        else:
            balancer.lease_valid_until = self._loop.time()  # the next step sees to it

    async def _acquired_by_another(self) -> None:
        while (held := self.lease) and held.holder is None:
            self._wakeup.clear()
            await self._wakeup.wait()

    def _step_down(self, held: LeaseRecord) -> None:
        peer = held.holder
        _log.info("standing by: balancer %s hands out the slots", peer and peer.identity)
        self._last_leader_at = self._loop.time()
        # A successor that was there to take the Lease is there to take requests.
        self._balancer.become_standby(peer.clients if peer else None)

    # The Lease.

    async def _write(self, holder: Peer | None, over: LeaseRecord) -> LeaseRecord | None:
        """Make `holder` the holder; None where another was quicker or the API does not answer."""
        try:
            async with asyncio.timeout(self._timeouts.api):
                lease = manifest(*self._place, holder, over, self._wall())
                written = LeaseRecord.read(await self._cluster.apply(lease))
        except Conflict:
            await self._read()
            return None
        except (ApiError, TimeoutError) as error:
            _log.warning("the lease: %s", str(error) or "the API server is late")
            return None
        self._on_lease(written)
        return written

    async def _read(self) -> bool:
        """Whether the API server said what the Lease is."""
        try:
            async with asyncio.timeout(self._timeouts.api):
                lease = await self._cluster.get(LEASES, *self._place)
        except (ApiError, TimeoutError) as error:
            _log.warning("the lease: %s", str(error) or "the API server is late")
            return False
        self._on_lease(LeaseRecord.read(lease) if lease else None)
        return True

    def _on_lease(self, held: LeaseRecord | None) -> None:
        if held == self.lease:
            return
        self.lease = held
        self._balancer.set_blocked(held.blocker if held else None)
        self._last = (held.holder if held else None) or self._last
        self._probe.reset()
        self._wakeup.set()
