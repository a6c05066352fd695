"""Several whole balancers in this process, one of which leads by a Lease in a fake cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from typing_extensions import override

from balancer_harness import Balancer, balancer
from fake_cluster import FakeCluster
from fake_llama import FakeLlama
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.leader_probe import ElectionTimeouts
from slotkeeper.balancer.election.lease import Peer
from slotkeeper.kube.cluster import Kind, Manifest, Unreachable, WatchEvent
from slotkeeper.kube.kinds import LEASES
from wait_until import until

PLACE = ("ns", "tiny-balancer")
QUICK = ElectionTimeouts(
    poll=0.02,
    response=0.4,
    retry=0.01,
    unresponsive=0.6,
    lease_validity=0.3,
    settle=0.01,
    handover=0.5,
    visibility=1,
)


class WatchedCluster(FakeCluster):
    """A fake cluster whose watches go on until they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False
        """No watch tells of anything any more, as one whose connection died without a word."""
        self.lost_answers = 0
        """So many writes from now on are done, and their answers lost."""
        self._stored = asyncio.Event()

    @override
    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        seen = resource_version
        while True:
            stored = self._stored
            newest = str(self._version)
            async for event in super().watch(kind, namespace, labels, seen, name=name):
                if not self.deaf:
                    yield event
            seen = newest
            await stored.wait()

    @override
    async def apply(self, manifest: Manifest) -> Manifest:
        applied = await super().apply(manifest)
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unreachable(0, "Unreachable", "the answer is lost")
        return applied

    @override
    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        super().remove(kind, namespace, name)
        self._tell()

    @override
    def _store(self, place: Any, manifest: Manifest) -> None:
        super()._store(place, manifest)
        self._tell()

    def _tell(self) -> None:
        stored = self._stored
        self._stored = asyncio.Event()
        stored.set()

    def make_lease(self) -> None:
        """As the operator makes it."""
        self.put(
            {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": PLACE[1], "namespace": PLACE[0]},
                "spec": {},
            }
        )

    @property
    def holder(self) -> str:
        lease = self.objects.get((LEASES, *PLACE), {})
        return str((lease.get("spec") or {}).get("holderIdentity") or "")


@dataclass
class Member:
    """A balancer, and what makes it lead or stand by."""

    made: Balancer
    succession: LeaderElection
    running: asyncio.Task[None]

    @property
    def leads(self) -> bool:
        return self.made.proxy.is_leader

    async def finish(self, unused: Callable[[], bool]) -> None:
        """End as a process does that was told to, once it is `unused`: without a trace."""
        self.succession.end()
        await until(unused)
        assert await self.made.proxy.drain(10) == 0
        await self.succession.release()
        await self.die()

    async def die(self) -> None:
        """Be gone as a killed process is: nobody listens, and all connections are reset."""
        self.running.cancel()
        self.made.proxy.pause(True)
        for server in (self.made.clients, self.made.metrics):
            await server.close()
        await self.made.proxy.close()


@dataclass
class Family:
    """The balancers of one server, by name."""

    cluster: WatchedCluster
    replicas: tuple[FakeLlama, ...]
    patience: ElectionTimeouts
    members: dict[str, Member] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            member.running.cancel()
        await self._stack.aclose()

    async def add(self, name: str) -> Member:
        """A balancer starts."""
        made = await self._stack.enter_async_context(balancer())
        sides = (f"127.0.0.1:{made.port}", f"127.0.0.1:{made.metrics_port}")
        succession = LeaderElection(
            self.cluster, PLACE, Peer(name, *sides), made.proxy, _wall, self.patience
        )
        made.admin.election = succession
        made.proxy.set_replicas({replica.name: True for replica in self.replicas})
        member = Member(made, succession, asyncio.ensure_future(succession.run()))
        self.members[name] = member
        return member

    async def add_leader(self, name: str) -> Member:
        """A balancer starts, and leads with all replicas."""
        member = await self.add(name)
        await until(lambda: member.leads)
        accepting = member.made.dispatcher.ready_replicas
        await until(lambda: sum(1 for _ in accepting()) == len(self.replicas))
        return member

    async def add_standby(self, name: str) -> Member:
        """A balancer starts beside one that leads, and relays to it."""
        member = await self.add(name)
        await until(lambda: member.made.proxy.is_relaying)
        return member


def _wall() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def family(*replicas: FakeLlama, patience: ElectionTimeouts = QUICK) -> AsyncIterator[Family]:
    """Balancers in front of these replicas, in a cluster with their Lease."""
    cluster = WatchedCluster()
    cluster.make_lease()
    async with Family(cluster, replicas, patience) as made, asyncio.timeout(20):
        yield made
