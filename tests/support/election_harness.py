"""Several complete balancers in this process, with leader election in a fake cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.balancer.election.peers import Peer, PeerDirectory
from slotkeeper.balancer.upstream.endpoints import service_labels
from slotkeeper.kube.cluster import ApiError, Kind, Manifest, Unreachable, WatchEvent
from slotkeeper.kube.kinds import ENDPOINT_SLICES, LEASES
from wait_until import until

LEASE_NAME = ("ns", "tiny-balancer")
SERVICE = "tiny"
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

    def add_pod(self, pod: Peer) -> None:
        """Add a pod behind the balancers' Service, in a slice of its own, as are its ports."""
        host, _, clients = pod.clients.rpartition(":")
        metrics = pod.metrics.rpartition(":")[2]
        self.put(
            {
                "apiVersion": ENDPOINT_SLICES.api_version,
                "kind": ENDPOINT_SLICES.kind,
                "metadata": {
                    "name": f"{SERVICE}-{pod.identity}",
                    "namespace": LEASE_NAME[0],
                    "labels": service_labels(SERVICE),
                },
                "ports": [
                    {"name": "http", "port": int(clients)},
                    {"name": "metrics", "port": int(metrics)},
                ],
                "endpoints": [
                    {
                        "addresses": [host],
                        "conditions": {"ready": True},
                        "targetRef": {"kind": "Pod", "name": pod.identity},
                    }
                ],
            }
        )

    def remove_pod(self, name: str) -> None:
        self.remove(ENDPOINT_SLICES, LEASE_NAME[0], f"{SERVICE}-{name}")

    @property
    def slices(self) -> list[Manifest]:
        """The EndpointSlices of the balancers' Service."""
        return list(self.by_name(ENDPOINT_SLICES).values())

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
    peers: PeerDirectory
    task: asyncio.Task[None]

    @property
    def is_leader(self) -> bool:
        return self.balancer.proxy.is_leader

    def invalidate_token(self) -> None:
        """Let the API server reject this balancer, as after its ServiceAccount was deleted."""
        cluster = FakeCluster()
        cluster.get = cluster.apply = _rejected  # type: ignore[assignment,method-assign]
        self.election._cluster = cluster

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

    async def add(self, name: str, **options: Any) -> Member:
        """Start a balancer; `options`: of run_balancer."""
        balancer = await self._stack.enter_async_context(run_balancer(**options))
        addresses = (f"127.0.0.1:{balancer.port}", f"127.0.0.1:{balancer.metrics_port}")
        peers = PeerDirectory(name, self._fetch_peers)
        auth = PeerAuth(peers, name.encode() + b" secret")
        election = LeaderElection(
            self.cluster, LEASE_NAME, auth, balancer.proxy, wall_time, self.timeouts
        )
        balancer.admin.election = election
        balancer.access.peers = auth
        balancer.proxy.set_replicas({replica.name: True for replica in self.replicas})
        self.cluster.add_pod(Peer(name, *addresses))
        task = asyncio.ensure_future(election.run())
        member = self.members[name] = Member(balancer, election, peers, task)
        self.update_peers()
        return member

    def update_peers(self) -> None:
        """Show all balancers the present pods, as their watches do."""
        for member in self.members.values():
            member.peers.update(self.cluster.slices)

    async def _fetch_peers(self) -> list[Manifest]:
        return (await self.cluster.list(ENDPOINT_SLICES, LEASE_NAME[0])).items

    async def add_leader(self, name: str, **options: Any) -> Member:
        """Start a balancer; wait until it is the leader and all replicas are ready."""
        member = await self.add(name, **options)
        await until(lambda: member.is_leader)
        ready = member.balancer.dispatcher.ready_replicas
        await until(lambda: sum(1 for _ in ready()) == len(self.replicas))
        return member

    async def add_standby(self, name: str, **options: Any) -> Member:
        """Start a balancer; wait until it relays to the leader."""
        member = await self.add(name, **options)
        await until(lambda: member.balancer.proxy.is_relaying)
        return member


def proof_header(sender: Member, receiver: Member) -> str:
    """The header by which a balancer proves to another who it is."""
    return f"X-Slotkeeper-Peer: {sender.election.auth.proof(receiver.election.me).decode()}"


def introduce(standby: Balancer, leader: Balancer) -> bytes:
    """Let a balancer without a group verify another; return the proof of the other."""
    peers = [
        Peer(name, f"127.0.0.1:{each.port}", f"127.0.0.1:{each.metrics_port}")
        for name, each in (("standby", standby), ("leader", leader))
    ]
    cluster = WatchedCluster()
    for peer in peers:
        cluster.add_pod(peer)
    auths: list[PeerAuth] = []
    for peer in peers:
        directory = PeerDirectory(peer.identity, _no_slices)
        directory.update(cluster.slices)
        auths.append(PeerAuth(directory, peer.identity.encode(), _digest_of(auths)))
    leader.access.peers = auths[1]
    return auths[0].proof("leader")


async def _rejected(*_: object) -> Any:
    raise ApiError(401, "Unauthorized", "Unauthorized")


async def _no_slices() -> list[Manifest]:
    return []


def _digest_of(auths: list[PeerAuth]) -> Callable[[Peer, str], Awaitable[str]]:
    async def fetch(_: Peer, receiver: str) -> str:
        return auths[0].digest(receiver)

    return fetch


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
