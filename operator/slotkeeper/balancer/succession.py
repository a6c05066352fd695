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
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from slotkeeper.balancer.lease import Held, Peer, manifest
from slotkeeper.kube.cluster import ApiError, Cluster, Conflict, Manifest
from slotkeeper.kube.follow import follow
from slotkeeper.kube.kinds import LEASES
from slotkeeper.wire.fetch import get

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How the balancers deal with one another; seconds."""

    ask: float = 1.0
    """Between two questions to the holder."""
    answer: float = 1.0
    """For its answer."""
    ask_again: float = 0.2
    """After the first time that nobody listened: its process may be starting anew."""
    silent: float = 3.0
    """A holder that has not answered for so long has lost the Lease."""
    sure: float = 2.0
    """For how long the holder may take it for granted that it is. Less than `silent`, so that one
    whose process stood still finds out before it hands out anything."""
    settle: float = 0.5
    """After a holder is gone, for what it has sent to be counted by /slots."""
    hand_over: float = 3.0
    """For another to take a Lease that was given back for it."""
    settling: float = 2.0
    """The longest wait for /slots to count all that was sent, before the Lease is given back."""


class Balancer(Protocol):
    """What is led: see Proxy."""

    leads: bool
    sure_until: float

    @property
    def settled(self) -> bool: ...  # noqa: D102 (see Proxy)
    def lead(self) -> None: ...  # noqa: D102
    def stand_by(self, peer: str | None) -> None: ...  # noqa: D102
    def pause(self, paused: bool) -> None: ...  # noqa: D102


class _Answer(Enum):
    LEADS = "it hands out the slots"
    SILENT = "it may come back, or says that it does not hand out slots"
    DEAD = "its process is gone"


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
        self._held: Held | None = None
        self._news = asyncio.Event()
        self._ending = False
        self._tries_to_end = 0
        self._asked_at = float("-inf")  # when another last asked, and would take over
        self._answered_at = self._loop.time()
        self._refused = 0
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
        self._tries_to_end = 2
        self._news.set()

    async def release(self) -> None:
        """Nobody took over: leave the Lease to whoever comes; quiet where that fails."""
        if self._balancer.leads and self._held and self._held.holder == self.me:
            await self._write(None, self._held)

    def asked(self, by: str) -> bool:
        """Another balancer asks, `by` its name where it would take over; whether this one leads."""
        if by not in {"", self.me.identity}:
            self._asked_at = self._loop.time()
            if self._ending:
                self._news.set()
        return self._balancer.leads

    async def _follow(self) -> None:
        async for leases in self._leases():
            lease = leases.get(self._place[1])
            held, known = Held.read(lease) if lease else None, self._held
            # What was read before the last write here comes later than that write's answer.
            if held is None or known is None or held.transitions >= known.transitions:
                self._learn(held)

    def _leases(self) -> AsyncIterator[dict[str, Manifest]]:
        namespace, name = self._place
        return follow(self._cluster, LEASES, namespace, name=name)

    async def _step(self) -> float:
        """Do what is due; how many seconds until the next look without news."""
        held, patience = self._held, self._patience
        if held is None:
            # It is not made yet, or somebody deleted it: nobody else can lead either.
            self._balancer.sure_until = self._loop.time() + patience.sure
            return patience.ask
        if self._balancer.leads:
            await self._lead(held)
            return patience.ask
        holder = held.holder
        if holder is None or holder.identity == self.me.identity:
            await self._take(held, clean=holder is None)
            return patience.ask
        answer = await self._ask(holder)
        if self._held != held:
            return 0
        if answer is _Answer.LEADS:
            self._balancer.stand_by(holder.clients)
        else:
            self._balancer.stand_by(None)
            if answer is _Answer.DEAD:
                _log.warning("balancer %s is gone", holder.identity)
                await self._take(held, clean=False)
            return patience.ask_again
        return patience.ask

    # As the one that leads.

    async def _lead(self, held: Held) -> None:
        now, patience = self._loop.time(), self._patience
        late = now >= self._balancer.sure_until
        if late:
            held = await self._read() or held
        if held.holder is None:
            # Somebody deleted it, and the operator made it anew.
            held = await self._write(self.me, held) or self._held or held
        if held.holder != self.me:
            self._stand_down(held)
            return
        self._balancer.sure_until = self._loop.time() + patience.sure
        if late:
            self._balancer.pause(False)
        if self._tries_to_end and now - self._asked_at < patience.silent:
            self._tries_to_end -= 1
            await self._give_back(held)

    async def _give_back(self, held: Held) -> None:
        patience, balancer = self._patience, self._balancer
        balancer.pause(True)
        deadline = self._loop.time() + patience.settling
        while not balancer.settled and self._loop.time() < deadline:  # noqa: ASYNC110 (time is)
            await asyncio.sleep(0.01)
        free = await self._write(None, held)
        if free:
            _log.info("gave the lease back")
            try:
                async with asyncio.timeout(patience.hand_over):
                    while self._held.holder is None:  # type: ignore[union-attr]
                        self._news.clear()
                        await self._news.wait()
            except TimeoutError:
                _log.warning("nobody took the lease: going on")
                await self._write(self.me, free)
        held = self._held or held
        if held.holder == self.me:
            balancer.sure_until = self._loop.time() + patience.sure
            balancer.pause(False)
        elif held.holder:
            self._stand_down(held)

    def _stand_down(self, held: Held) -> None:
        peer = held.holder
        _log.info("standing by: balancer %s hands out the slots", peer and peer.identity)
        # A successor that was there to take the Lease is there to take requests.
        self._balancer.stand_by(peer.clients if peer else None)

    # As one that stands by.

    async def _take(self, held: Held, *, clean: bool) -> None:
        if self._ending:
            return
        taken = await self._write(self.me, held)
        if taken is None:
            return
        if not clean:
            await asyncio.sleep(self._patience.settle)
        if self._held is None or self._held.holder != self.me:
            return
        before = held.holder.identity if held.holder else "nobody"
        _log.info("handing out the slots from now on, after %s", before)
        self._balancer.sure_until = self._loop.time() + self._patience.sure
        self._balancer.lead()

    async def _ask(self, holder: Peer) -> _Answer:
        patience = self._patience
        host, _, port = holder.metrics.rpartition(":")
        path = "/peer" if self._ending else f"/peer?identity={self.me.identity}"
        now = self._loop.time()
        try:
            status, body = await get(host.strip("[]"), int(port), path, seconds=patience.answer)
            said = json.loads(body) if status == 200 else {}
            refused = said.get("identity", holder.identity) != holder.identity
            leads = bool(said.get("leads"))
        except ConnectionRefusedError:
            refused, leads = True, False
        except (OSError, ValueError, AttributeError):
            refused = leads = False
        self._refused = self._refused + 1 if refused else 0
        if leads and not refused:
            self._answered_at = now
            return _Answer.LEADS
        silent = self._loop.time() - self._answered_at >= patience.silent
        return _Answer.DEAD if silent or self._refused > 1 else _Answer.SILENT

    # The Lease.

    async def _write(self, holder: Peer | None, over: Held) -> Held | None:
        """Make `holder` the holder; None where another was quicker or the API does not answer."""
        try:
            lease = manifest(*self._place, holder, over, self._wall())
            written = Held.read(await self._cluster.apply(lease))
        except Conflict:
            await self._read()
            return None
        except ApiError as error:
            _log.warning("the lease: %s", error)
            return None
        self._learn(written)
        return written

    async def _read(self) -> Held | None:
        try:
            lease = await self._cluster.get(LEASES, *self._place)
        except ApiError as error:
            _log.warning("the lease: %s", error)
            return None
        self._learn(Held.read(lease) if lease else None)
        return self._held

    def _learn(self, held: Held | None) -> None:
        if held == self._held:
            return
        self._held = held
        self._answered_at = self._loop.time()
        self._refused = 0
        self._news.set()
