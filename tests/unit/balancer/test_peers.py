"""Trust between balancers: whom a standby follows, and whose relays and probes a leader accepts."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from balancer_harness import run_balancer
from election_harness import (
    FAST_ELECTION,
    Member,
    WatchedCluster,
    introduce,
    run_group,
)
from fake_llama import FakeLlama, stream_two_events
from raw_http import RawClient, get, post
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.balancer.election.peers import Peer, PeerDirectory, peers_in
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.kube.cluster import Unreachable
from wait_until import until

KEY = "Authorization: Bearer sk-alice"


def alices_key() -> ApiKeys:
    keys = ApiKeys(b"salt")
    keys.replace({"alice": b"sk-alice"})
    return keys


@dataclass
class Impostor:
    """A server that leads by its own account, and responds to requests with its own words."""

    clients: str = ""
    metrics: str = ""
    received: list[bytes] = field(default_factory=list)
    """Heads of requests on its clients' port."""

    async def serve_metrics(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"identity": "impostor", "leader": True}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await reader.read()
        writer.close()

    async def serve_clients(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nforged")
        writer.close()


@asynccontextmanager
async def run_impostor() -> AsyncIterator[Impostor]:
    impostor = Impostor()
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0)
        for serve in (impostor.serve_clients, impostor.serve_metrics)
    ]
    addresses = [f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]
    impostor.clients, impostor.metrics = addresses
    try:
        yield impostor
    finally:
        for server in servers:
            server.close()


def hold(identity: str, impostor: Impostor | None = None) -> Callable[[Any], None]:
    """An edit of the Lease by someone who may patch Leases, and nothing else."""

    def edit(lease: Any) -> None:
        transitions = (lease.get("spec") or {}).get("leaseTransitions", 0)
        lease["spec"] = {"holderIdentity": identity, "leaseTransitions": transitions}
        if impostor:
            lease["metadata"]["annotations"] = {
                "slotkeeper.dev/client-address": impostor.clients,
                "slotkeeper.dev/metrics-address": impostor.metrics,
            }

    return edit


async def served(members: list[Member], *headers: str) -> list[bytes]:
    """The bodies of ten responses of each balancer."""
    return [
        (await member.balancer.request(post("/completion", b"{}", *headers))).body
        for member in members
        for _ in range(10)
    ]


# Whom to follow.


async def test_a_holder_that_is_no_balancer_gets_no_requests() -> None:
    async with FakeLlama(2) as llama, run_group(llama) as group, run_impostor() as impostor:
        members = [await group.add_leader("a"), await group.add_standby("b")]
        for _ in range(3):
            group.cluster.edit_lease(hold("impostor", impostor))

            assert b"forged" not in await served(members, KEY)
            await until(lambda: group.cluster.holder == "a")

        assert (impostor.received, len(llama.calls)) == ([], 60)
        assert (members[0].is_leader, members[1].is_leader) == (True, False)
        assert members[0].balancer.metric("leadership_acquired_total") == 1


@pytest.mark.parametrize("edited", ["", "b"])
async def test_edits_of_the_holder_lose_no_request_and_make_no_second_leader(edited: str) -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        members = [await group.add_leader("a"), await group.add_standby("b")]
        for _ in range(5):
            group.cluster.edit_lease(hold(edited))
            assert b"forged" not in await served(members)

        await until(lambda: sum(member.is_leader for member in members) == 1)
        assert (len(llama.calls), llama.overcommitted) == (100, 0)


async def test_a_lease_that_another_empties_stays_with_its_leader() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        group.cluster.edit_lease(hold(""))
        await until(lambda: group.cluster.holder == "a")

        assert (leader.is_leader, standby.is_leader) == (True, False)
        assert standby.balancer.metric("leadership_acquired_total") == 0


async def test_a_leader_that_cannot_check_a_new_holder_dispatches_nothing() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        # Its watch has not shown the new pod yet, and the API server is unreachable now.
        group.cluster.edit_lease(hold("new"))
        group.cluster.fail(Unreachable(0, "Unreachable", "no route"))
        await until(lambda: leader.balancer.proxy._paused)
        client = await leader.balancer.start_request(post("/completion"))
        assert leader.balancer.dispatcher.queued == 1

        group.cluster.recover()
        assert (await client.response()).status == 200
        assert group.cluster.holder == "a"


async def test_a_balancer_that_cannot_read_the_others_does_not_acquire_the_lease() -> None:
    async with run_group() as group:
        group.cluster.edit_lease(hold("unknown"))
        member = await group.add("a")

        async def unreachable() -> list[Any]:
            raise Unreachable(0, "Unreachable", "no route")

        fetch = member.peers._fetch
        member.peers._fetch = unreachable
        await asyncio.sleep(5 * FAST_ELECTION.retry)
        assert (group.cluster.holder, member.is_leader) == ("unknown", False)

        member.peers._fetch = fetch
        await until(lambda: member.is_leader)


async def test_a_leader_whose_pod_was_deleted_is_succeeded_once_it_has_ended() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        await leader.balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        group.cluster.remove_pod("a")
        group.update_peers()
        await until(lambda: not standby.balancer.proxy.is_relaying)
        # Its process still runs and dispatches.
        assert not standby.is_leader

        await leader.kill()
        await until(lambda: standby.is_leader)
        assert llama.overcommitted == 0


async def test_a_deleted_leader_whose_address_responds_is_succeeded_too() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        leader.task.cancel()
        group.cluster.remove_pod("a")
        group.update_peers()

        await until(lambda: standby.is_leader)
        assert (await standby.balancer.request(post("/completion"))).status == 200


async def test_a_balancer_that_the_others_cannot_find_does_not_acquire_the_lease() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        member = await group.add("a")
        member.task.cancel()
        unknown = PeerDirectory("x", group._fetch_peers)
        member.election._peers = unknown
        unknown.update(group.cluster.slices)
        assert not unknown.includes_me
        task = asyncio.ensure_future(member.election.run())
        await asyncio.sleep(5 * FAST_ELECTION.retry)
        task.cancel()

        assert (group.cluster.holder, member.is_leader) == ("", False)


def test_a_list_without_this_balancer_is_not_used() -> None:
    async def fetch() -> list[Any]:
        return []

    cluster = WatchedCluster()
    peers = PeerDirectory("a", fetch)
    for name in "ab":
        cluster.add_pod(Peer(name, "10.0.0.1:8080", "10.0.0.1:9090"))
    peers.update(cluster.slices)
    peers.update([])
    cluster.remove_pod("a")
    peers.update(cluster.slices)

    assert peers.find("b")
    assert peers.includes_me


@pytest.mark.parametrize(
    "changes",
    [
        {"ports": None},
        {"ports": [{"name": "http", "port": 8080}]},
        {"endpoints": None},
        {"endpoints": [{"addresses": ["10.0.0.1"]}]},
        {"endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Node", "name": "a"}}]},
        {"endpoints": [{"addresses": None, "targetRef": {"kind": "Pod", "name": "a"}}]},
    ],
)
def test_only_pods_with_both_ports_count(changes: dict[str, Any]) -> None:
    cluster = WatchedCluster()
    cluster.add_pod(Peer("a", "10.0.0.1:8080", "10.0.0.1:9090"))
    (only,) = cluster.slices

    assert peers_in([only]) == {"a": Peer("a", "10.0.0.1:8080", "10.0.0.1:9090")}
    assert peers_in([{**only, **changes}]) == {}


# Probes.


def stranger_headers(standby: Member) -> list[tuple[str, ...]]:
    key = standby.election.auth.proof("c").decode().rpartition(" ")[2]  # for another receiver
    return [
        (),
        ("X-Slotkeeper-Peer: b",),
        ("X-Slotkeeper-Peer: stranger 00",),
        (f"X-Slotkeeper-Peer: b {key}",),
        (f"X-Slotkeeper-Peer: b {standby.election.auth.digest('a')}",),
    ]


async def test_a_strangers_probe_gets_nothing_and_holds_no_shutdown() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        headers = stranger_headers(standby)
        await standby.kill()
        leader.election._candidates.clear()
        leader.election.shut_down()
        async with await RawClient.connect(leader.balancer.metrics_port) as client:
            for each in headers:
                path = "/peer?candidate=true&identity=stranger"
                response = await client.request(get(path, *each))
                assert (response.status, response.error_code) == (404, "not_found")

        # No successor was noted, so there is nothing to wait for.
        async with asyncio.timeout(0.2):
            await leader.election.wait_handover(10)


async def test_wrong_proofs_cause_few_requests() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        await group.add_standby("b")
        fetched = []

        async def fetch(peer: Peer, _: str) -> str:
            fetched.append(peer)
            return "00"

        auth = PeerAuth(leader.peers, b"", fetch)
        for _ in range(1000):
            assert await auth.verify(b"b 00") is None
            assert await auth.verify(b"stranger 00") is None

        assert 1 <= len(fetched) < 20


async def test_proofs_that_arrive_together_read_one_digest() -> None:
    async with run_group() as group:
        leader = await group.add_leader("a")
        await group.add_standby("b")
        digest = asyncio.get_running_loop().create_future()
        fetched = []

        async def fetch(peer: Peer, _: str) -> str:
            fetched.append(peer)
            result: str = await digest
            return result

        auth = PeerAuth(leader.peers, b"", fetch)
        standby = PeerAuth(PeerDirectory("b", group._fetch_peers), b"b secret")
        proofs = [asyncio.ensure_future(auth.verify(standby.proof("a"))) for _ in range(9)]
        await until(lambda: bool(fetched))
        proofs.pop().cancel()
        digest.set_result(standby.digest("a"))

        assert set(await asyncio.gather(*proofs)) == {"b"}
        assert len(fetched) == 1


async def test_a_restarted_standby_is_verified_again() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        await group.add_leader("a")
        standby = await group.add_standby("b")
        standby.election.auth._secret = b"of the next process"
        standby.balancer.proxy.become_standby(None)
        await until(lambda: standby.balancer.proxy.is_relaying)

        assert (await standby.balancer.request(post("/completion"))).status == 200


# Relays.


async def test_a_relay_has_the_name_of_the_key_and_never_the_key() -> None:
    async with run_balancer(keys=alices_key()) as standby, run_impostor() as leader:
        standby.proxy.become_standby(leader.clients, b"b 00")
        for key in (KEY, "X-Api-Key: sk-alice"):
            await standby.request(post("/completion", b"{}", key))

    for head in leader.received:
        assert b"sk-alice" not in head
        assert b"x-slotkeeper-key-name: alice\r\n" in head
    assert len(leader.received) == 2


async def test_the_leader_serves_a_relay_under_the_keys_name() -> None:
    rules = AccessRules(0, {"alice": 5})
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a", keys=alices_key(), rules=rules)
        standby = await group.add_standby("b", keys=alices_key(), rules=rules)

        assert (await standby.balancer.request(post("/completion"))).status == 401
        assert (await standby.balancer.request(post("/completion", b"{}", KEY))).status == 200
        (line,) = leader.balancer.access_log()

        assert (line["key"], line["outcome"]) == ("alice", "completed")
        sent = llama.calls[0].headers
        assert not {"authorization", "x-slotkeeper-peer", "x-slotkeeper-key-name"} & set(sent)


@pytest.mark.parametrize("size", [2, 100_000])
async def test_nobody_else_can_name_a_key(size: int) -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a", keys=alices_key())
        standby = await group.add_standby("b", keys=alices_key())
        name = "X-Slotkeeper-Key-Name: alice"
        for member in (leader, standby):
            for each in stranger_headers(standby):
                request = post("/completion", b" " * size, *each, name)
                response = await member.balancer.request(request)
                expected = (503, "relay_not_verified") if each else (401, "invalid_api_key")
                assert (response.status, response.error_code) == expected

        assert llama.calls == []


async def test_a_relay_of_a_balancer_that_requires_no_key_is_rejected() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        await group.add_leader("a", keys=alices_key())
        outdated = await group.add_standby("b")

        response = await outdated.balancer.request(post("/completion", b"{}", KEY))

        assert (response.status, llama.calls) == (401, [])
        assert (await outdated.balancer.request(get("/health"))).status == 200


async def test_headers_between_balancers_do_nothing_in_a_clients_request() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        headers = ("X-Slotkeeper-Hops: 20", "X-Slotkeeper-Key-Name: alice")
        response = await leader.balancer.request(post("/completion", b"{}", *headers))

        assert response.status == 200
        assert not [name for name in llama.calls[0].headers if name.startswith("x-slotkeeper")]
        assert leader.balancer.access_log()[0]["key"] is None
        # Nor does a draining leader take it for a relayed one.
        client = await leader.balancer.connect()
        leader.balancer.proxy.draining = True
        assert (await client.request(post("/completion", b"{}", *headers))).status == 503


async def test_a_relay_is_verified_though_no_probe_came_before() -> None:
    async with (
        FakeLlama(1) as llama,
        run_balancer(llama) as leader,
        run_balancer() as standby,
    ):
        proof = introduce(standby, leader)
        standby.proxy.become_standby(f"127.0.0.1:{leader.port}", proof)

        assert (await standby.request(post("/completion"))).status == 200


async def test_a_client_that_disconnects_before_its_relay_is_verified_is_not_served() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as leader:
        proof = introduce(leader, leader)
        waiting = asyncio.Event()

        async def fetch(_: Peer, __: str) -> str:
            waiting.set()
            await asyncio.sleep(0.05)
            raise OSError

        assert leader.access.peers
        leader.access.peers._fetch = fetch
        client = await leader.connect()
        await client.send(post("/completion", b"{}", f"X-Slotkeeper-Peer: {proof.decode()}"))
        await waiting.wait()
        client.reset()
        await until(lambda: not leader.proxy._tasks)

        assert (llama.calls, leader.access_log()) == ([], [])


async def test_peers_without_a_digest_are_not_believed() -> None:
    async with run_group() as group:
        leader = await group.add_leader("a")
        async with run_impostor() as impostor:
            group.cluster.add_pod(Peer("c", impostor.clients, impostor.metrics))
            group.update_peers()

            assert await leader.election.auth.verify(b"c 00") is None


async def test_a_digest_reveals_no_key() -> None:
    async with run_group() as group:
        leader = await group.add_leader("a")
        page = await leader.balancer.admin_json("/peer/digest?for=b")
        digest = page["digest"]

        assert set(page) == {"digest"}
        assert digest == leader.election.auth.digest("b") != leader.election.auth.digest("c")
        assert digest.encode() not in leader.election.auth.proof("b")
