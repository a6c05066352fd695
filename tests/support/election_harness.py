"""Several complete balancers in this process, with leader election in a fake cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from typing_extensions import override

from balancer_harness import TEST_SECONDS, Balancer, run_balancer
from fake_cluster import FakeCluster
from fake_llama import FakeLlama
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.leader_probe import ElectionTimeouts
from slotkeeper.balancer.election.lease import Peer
from slotkeeper.kube.cluster import Kind, Manifest, Unreachable, WatchEvent
from slotkeeper.kube.kinds import LEASES
from wait_until import until

LEASE_NAME = ("ns", "tiny-balancer")
FAST_ELECTION = ElectionTimeouts(
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
    """A fake cluster whose watches continue until they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.watches_stalled = False
        """Watches report nothing more, as if their connections had died unnoticed."""
        self.lose_responses = 0
        """For how many writes from now on the response is lost."""
        self._stored = asyncio.Event()
        self._restores = 0

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
        version = resource_version
        restores = self._restores
        while True:
            if restores != self._restores:
                raise Unreachable(0, "Unreachable", "the API server was restarted")
            stored = self._stored
            newest = str(self._version)
            async for event in super().watch(kind, namespace, labels, version, name=name):
                if not self.watches_stalled:
                    yield event
            version = newest
            await stored.wait()

    @override
    async def apply(self, manifest: Manifest) -> Manifest:
        applied = await super().apply(manifest)
        if self.lose_responses:
            self.lose_responses -= 1
            raise Unreachable(0, "Unreachable", "the response is lost")
        return applied

    @override
    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        super().remove(kind, namespace, name)
        self._notify_watches()

    @override
    def _store(self, place: Any, manifest: Manifest) -> None:
        super()._store(place, manifest)
        self._notify_watches()

    @override
    def restore(self, backup: FakeCluster) -> None:
        """Also restart the API server: its watches end."""
        super().restore(backup)
        self._restores += 1
        self._notify_watches()

    def _notify_watches(self) -> None:
        stored = self._stored
        self._stored = asyncio.Event()
        stored.set()

    def create_lease(self) -> None:
        """Create the Lease as the operator does."""
        self.put(
            {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": LEASE_NAME[1], "namespace": LEASE_NAME[0]},
                "spec": {},
            }
        )

    def delete_lease(self) -> None:
        self.remove(LEASES, *LEASE_NAME)

    def edit_lease(self, change: Callable[[Any], None]) -> None:
        """Change the Lease in place, as another client does."""
        self.edit(LEASES, *LEASE_NAME, change)

    @property
    def lease(self) -> Manifest:
        return self.objects[(LEASES, *LEASE_NAME)]

    @property
    def holder(self) -> str:
        lease = self.objects.get((LEASES, *LEASE_NAME), {})
        return str((lease.get("spec") or {}).get("holderIdentity") or "")


@dataclass
class Member:
    """A balancer and its part in the election."""

    balancer: Balancer
    election: LeaderElection
    task: asyncio.Task[None]

    @property
    def is_leader(self) -> bool:
        return self.balancer.proxy.is_leader

    async def shut_down(self, unused: Callable[[], bool]) -> None:
        """Shut down as a process does after SIGTERM, once no client uses it any more."""
        self.election.shut_down()
        await until(unused)
        assert await self.balancer.proxy.drain(10) == 0
        await self.election.release()
        await self.kill()

    async def kill(self) -> None:
        """End as a killed process does: ports are closed, and connections are reset."""
        self.task.cancel()
        self.balancer.proxy.pause(True)
        for server in (self.balancer.client_server, self.balancer.metrics_server):
            await server.close()
        await self.balancer.proxy.close()


@dataclass
class Group:
    """The balancers of one server, by name."""

    cluster: WatchedCluster
    replicas: tuple[FakeLlama, ...]
    timeouts: ElectionTimeouts
    members: dict[str, Member] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            member.task.cancel()
        await self._stack.aclose()

    async def add(self, name: str) -> Member:
        """Start a balancer."""
        balancer = await self._stack.enter_async_context(run_balancer())
        addresses = (f"127.0.0.1:{balancer.port}", f"127.0.0.1:{balancer.metrics_port}")
        me = Peer(name, *addresses)
        election = LeaderElection(
            self.cluster, LEASE_NAME, me, balancer.proxy, wall_time, self.timeouts
        )
        balancer.admin.election = election
        balancer.proxy.set_replicas({replica.name: True for replica in self.replicas})
        member = Member(balancer, election, asyncio.ensure_future(election.run()))
        self.members[name] = member
        return member

    async def add_leader(self, name: str) -> Member:
        """Start a balancer; wait until it is the leader and all replicas are ready."""
        member = await self.add(name)
        await until(lambda: member.is_leader)
        ready = member.balancer.dispatcher.ready_replicas
        await until(lambda: sum(1 for _ in ready()) == len(self.replicas))
        return member

    async def add_standby(self, name: str) -> Member:
        """Start a balancer; wait until it relays to the leader."""
        member = await self.add(name)
        await until(lambda: member.balancer.proxy.is_relaying)
        return member


def wall_time() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def run_group(
    *replicas: FakeLlama, timeouts: ElectionTimeouts = FAST_ELECTION
) -> AsyncIterator[Group]:
    """Run a group without members, in a cluster with their Lease, in front of these replicas."""
    cluster = WatchedCluster()
    cluster.create_lease()
    async with Group(cluster, replicas, timeouts) as group, asyncio.timeout(TEST_SECONDS):
        yield group
