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

from slotkeeper.api.blocker import Obstacle
from slotkeeper.balancer.election.leader_probe import Answer, Holder, Patience
from slotkeeper.balancer.election.lease import Held, Peer, manifest
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict
from slotkeeper.kube.kinds import LEASES
from slotkeeper.kube.watch import follow

_log = logging.getLogger(__name__)


class Balancer(Protocol):
    """What is led: see Proxy."""

    leads: bool
    sure_until: float

    @property
    def settled(self) -> bool: ...  # noqa: D102 (see Proxy)
    @property
    def waits(self) -> bool: ...  # noqa: D102
    def lead(self) -> None: ...  # noqa: D102
    def stand_by(self, peer: str | None) -> None: ...  # noqa: D102
    def pause(self, paused: bool) -> None: ...  # noqa: D102
    def lost(self, peer: str) -> None: ...  # noqa: D102
    def hinder(self, obstacle: Obstacle | None) -> None: ...  # noqa: D102


class Succession:
    """One balancer among those of its server. `place`: namespace and name of the Lease."""

    def __init__(
        self,
        cluster: Cluster,
        place: tuple[str, str],
        me: Peer,
        balancer: Balancer,
        wall: Callable[[], datetime],
        patience: Patience | None = None,
    ) -> None:
        self.me = me
        self._cluster = cluster
        self._place = place
        self._balancer = balancer
        self._wall = wall
        self._patience = patience or Patience()
        self._loop = asyncio.get_running_loop()
        self.held: Held | None = None
        """The Lease as it was last read."""
        self._last: Peer | None = None  # the last holder that there was
        self._holder = Holder(me, self._patience)
        self._news = asyncio.Event()
        self._ending = self._released = False
        self._give_back_at = float("inf")  # when to try it
        self._asked_at = float("-inf")  # when another last asked, and would take over
        self._led_at = self._loop.time()  # when somebody was last known to lead
        balancer.stand_by(None)

    async def run(self) -> None:
        """Lead or stand by, as the Lease says. Never ends."""
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._follow())
            while True:
                pause = await self._step()
                self._news.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                except TimeoutError:
                    pass

    def end(self) -> None:
        """This balancer is to end: give the Lease to whoever asks for it."""
        self._ending = True
        self._give_back_at = self._loop.time()
        self._news.set()

    async def handed_over(self, seconds: float) -> None:
        """Wait until another leads, or none asks to: at most for `seconds`.

        Until then the others' requests come here, and must find somebody who takes them.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._balancer.leads and self._quiet < self._patience.silent:  # noqa: ASYNC110
                    await asyncio.sleep(self._patience.ask_again)
        except TimeoutError:
            _log.warning("nobody took the lease over in time")

    async def release(self) -> None:
        """Nobody took over: leave the Lease to whoever comes; quiet where that fails."""
        if self._balancer.leads and self.held and self.held.holder == self.me:
            self._released = True  # before the watch says that it is free, which is no news then
            self._balancer.pause(True)
            await self._write(None, self.held)

    def asked(self, by: str) -> bool:
        """Another balancer asks, `by` its name where it would take over; whether this one leads."""
        if by not in {"", self.me.identity}:
            self._asked_at = self._loop.time()
            if self._ending:
                self._news.set()
        return self._balancer.leads

    @property
    def _quiet(self) -> float:
        """Seconds since another asked that would take over."""
        return self._loop.time() - self._asked_at

    async def _follow(self) -> None:
        namespace, name = self._place
        async for leases in follow(self._cluster, LEASES, namespace, name=name):
            lease = leases.get(name)
            held = Held.read(lease) if lease else None
            known = self.held
            if held is None:
                _log.warning("there is no lease %s/%s: nobody can begin to lead", *self._place)
            # What was read before the last write here comes later than that write's answer.
            if held is None or known is None or held.may_follow(known):
                self._learn(held)

    async def _step(self) -> float:
        """Do what is due; how many seconds until the next look without news."""
        if self._balancer.leads and not self._released:
            return await self._lead()
        if self.held and not self._released:
            return await self._stand_by(self.held)
        return self._patience.ask

    # As one that stands by.

    async def _stand_by(self, held: Held) -> float:
        patience = self._patience
        if held.holder and held.holder.identity == self.me.identity:
            await self._take(held, clean=False)
            return patience.ask
        # A Lease that is new or was edited says nothing of who leads: whoever did knows.
        holder = held.holder or (None if held.given_back else self._last)
        if holder is None or holder == self.me:
            await self._take(held, clean=held.given_back)
            return patience.ask
        answer = await self._holder.ask(holder, would_follow=not self._ending)
        if self.held != held:
            return 0
        if answer is Answer.LEADS:
            self._led_at = self._loop.time()
            self._balancer.stand_by(holder.clients)
            return patience.ask
        self._balancer.stand_by(None)
        if answer is Answer.DEAD:
            self._balancer.lost(holder.clients)
            await self._take(held, clean=False)
        return patience.ask_again

    async def _take(self, held: Held, *, clean: bool) -> None:
        began = self._loop.time()
        patience = self._patience
        # One that ends leaves it to the others. If there are none, what waits here must not.
        left_alone = self._balancer.waits and began - self._led_at >= patience.hand_over
        if self._ending and not left_alone:
            return
        if await self._write(self.me, held) is None:
            return
        if not clean:
            await asyncio.sleep(patience.settle)
        if self._loop.time() - began >= patience.sure and not await self._read():
            return  # this process stood still: another may have taken it meanwhile
        if self.held is None or self.held.holder != self.me:
            return
        before = held.holder.identity if held.holder else "nobody"
        _log.info("handing out the slots from now on, after %s", before)
        self._balancer.sure_until = self._loop.time() + patience.sure
        self._balancer.lead()

    # As the one that leads.

    async def _lead(self) -> float:
        balancer = self._balancer
        patience = self._patience
        late = self._loop.time() >= balancer.sure_until
        # Whoever asked and asks no more is gone, or cannot reach this one and takes over.
        missed = patience.sure <= self._quiet < 4 * patience.silent
        if late or missed:
            await self._read()
        held = self.held
        if held and held.holder is None:
            # Somebody deleted it, and the operator made it anew.
            await self._write(self.me, held)
            held = self.held
        if held and held.holder != self.me:
            self._stand_down(held)
            return patience.ask
        # Where there is no Lease nobody else can lead either.
        balancer.sure_until = self._loop.time() + patience.sure
        balancer.pause(False)
        due = self._loop.time() >= self._give_back_at
        if held and due and self._quiet < patience.silent:
            await self._give_back()
        return patience.ask_again if missed else patience.ask

    async def _give_back(self) -> None:
        patience = self._patience
        balancer = self._balancer
        if not await self._read() or not self.held or self.held.holder != self.me:
            return  # the API server is away: not now
        balancer.pause(True)
        deadline = self._loop.time() + patience.settling
        while not balancer.settled and self._loop.time() < deadline:  # noqa: ASYNC110 (time is)
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(patience.hand_over):
                # It may be written though no answer came: nothing is handed out before that is
                # known.
                known = bool(await self._write(None, self.held))
                while not (known or await self._read()):  # noqa: ASYNC110 (the API server says)
                    await asyncio.sleep(patience.ask_again)
                await self._taken()
        except TimeoutError:
            _log.warning("nobody took the lease: going on")
            self._give_back_at = self._loop.time() + 5 * patience.hand_over
            free = self.held
            if free is not None and free.holder is None:
                await self._write(self.me, free)
        held = self.held
        if held is None or held.holder == self.me:
            balancer.sure_until = self._loop.time() + patience.sure
            balancer.pause(False)
        elif held.holder:
            _log.info("gave the lease back")
            self._stand_down(held)
        else:
            balancer.sure_until = self._loop.time()  # the next step sees to it

    async def _taken(self) -> None:
        while (held := self.held) and held.holder is None:
            self._news.clear()
            await self._news.wait()

    def _stand_down(self, held: Held) -> None:
        peer = held.holder
        _log.info("standing by: balancer %s hands out the slots", peer and peer.identity)
        self._led_at = self._loop.time()
        # A successor that was there to take the Lease is there to take requests.
        self._balancer.stand_by(peer.clients if peer else None)

    # The Lease.

    async def _write(self, holder: Peer | None, over: Held) -> Held | None:
        """Make `holder` the holder; None where another was quicker or the API does not answer."""
        try:
            async with asyncio.timeout(self._patience.api):
                lease = manifest(*self._place, holder, over, self._wall())
                written = Held.read(await self._cluster.apply(lease))
        except Conflict:
            await self._read()
            return None
        except (ApiError, TimeoutError) as error:
            _log.warning("the lease: %s", str(error) or "the API server is late")
            return None
        self._learn(written)
        return written

    async def _read(self) -> bool:
        """Whether the API server said what the Lease is."""
        try:
            async with asyncio.timeout(self._patience.api):
                lease = await self._cluster.get(LEASES, *self._place)
        except (ApiError, TimeoutError) as error:
            _log.warning("the lease: %s", str(error) or "the API server is late")
            return False
        self._learn(Held.read(lease) if lease else None)
        return True

    def _learn(self, held: Held | None) -> None:
        if held == self.held:
            return
        self.held = held
        self._balancer.hinder(held.obstacle if held else None)
        self._last = (held.holder if held else None) or self._last
        self._holder.anew()
        self._news.set()
