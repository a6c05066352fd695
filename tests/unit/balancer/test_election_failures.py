"""Leader election while balancers, the API server, the network or people fail."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from balancer_harness import TEST_SECONDS
from election_harness import FAST_ELECTION, LEASE_NAME, Group, run_group, wall_time
from fake_llama import FakeLlama, stream_two_events
from queued_stream import COMMENT
from raw_http import RawClient, get, post
from slotkeeper.balancer.election.lease import LeaseRecord, manifest
from slotkeeper.balancer.election.peers import Peer
from slotkeeper.kube.cluster import Manifest, Unreachable
from slotkeeper.scheduling import QueueLimits
from wait_until import until


class UnresponsiveLeader:
    """A leader that accepts requests and never responds to them.

    When it is `silent`, it does not respond to probes either, though its connections stay open.
    """

    def __init__(self) -> None:
        self.silent = False
        self.received = 0
        self.address = ""
        """HOST:PORT of its clients' port."""

    async def serve_metrics(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not self.silent:
            body = json.dumps({"identity": "unresponsive", "leader": True}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()
        writer.close()

    async def serve_clients(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.received += 1
        await reader.read()
        writer.close()


@asynccontextmanager
async def run_unresponsive_leader(group: Group) -> AsyncIterator[UnresponsiveLeader]:
    leader = UnresponsiveLeader()
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0)
        for serve in (leader.serve_clients, leader.serve_metrics)
    ]
    addresses = [f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]
    leader.address = addresses[0]
    group.cluster.add_pod(Peer("unresponsive", *addresses))
    group.update_peers()

    def acquire(lease: dict[str, object]) -> None:
        lease["spec"] = {"holderIdentity": "unresponsive", "leaseTransitions": 1}

    group.cluster.edit_lease(acquire)
    try:
        yield leader
    finally:
        for server in servers:
            server.close()


async def test_requests_relayed_to_a_leader_that_stops_responding_are_served() -> None:
    async with (
        FakeLlama(2) as llama,
        run_group(llama) as group,
        run_unresponsive_leader(group) as leader,
    ):
        standby = await group.add_standby("b")
        clients = [await standby.balancer.start_request(post("/completion")) for _ in "12"]
        await until(lambda: leader.received == 2)
        leader.silent = True

        for client in clients:
            assert (await client.response()).status == 200
        assert (standby.is_leader, len(llama.calls)) == (True, 2)


async def test_so_is_one_whose_client_got_comments_before_it_was_relayed() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        standby = await group.add("b")
        standby.task.cancel()
        proxy = standby.balancer.proxy
        proxy.become_standby(None)
        proxy.keepalive.seconds = 0.01
        client = await standby.balancer.start_request(post("/completion", b'{"stream":true}'))
        await client.reader.readuntil(COMMENT % 1)
        async with run_unresponsive_leader(group) as leader:
            proxy.become_standby(leader.address)
            await until(lambda: leader.received == 1)
            proxy.become_standby(None)
            proxy.peer_lost(leader.address)
            proxy.become_leader()
            await llama.proceed(0)
            await client.reader.readuntil(b"data: last\n\n")


async def test_a_relayed_request_whose_client_disconnects_is_not_retried() -> None:
    async with (
        FakeLlama(2) as llama,
        run_group(llama) as group,
        run_unresponsive_leader(group) as leader,
    ):
        standby = await group.add_standby("b")
        client = await standby.balancer.start_request(post("/completion"))
        await until(lambda: leader.received == 1)
        leader.silent = True
        await client.close()
        await until(lambda: standby.is_leader and standby.balancer.dispatcher.has_replica)
        await standby.balancer.wait_idle()

        assert llama.calls == []


async def test_a_standby_has_no_queue_limits() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        await group.add_leader("a")
        standby = await group.add_standby("b")
        standby.balancer.dispatcher.limits = QueueLimits(max_queued=0, max_queued_bytes=1)

        assert (await standby.balancer.request(post("/completion"))).status == 200


async def test_a_lease_deleted_during_handover_stays_with_its_holder() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.election.on_peer_probe("gone", candidate=True)
        leader.election.shut_down()
        await until(lambda: group.cluster.holder == "")
        group.cluster.delete_lease()

        assert (await leader.balancer.request(post("/completion"))).status == 200
        group.cluster.create_lease()
        await until(lambda: group.cluster.holder == "a")
        assert leader.is_leader


@pytest.mark.parametrize("times", range(3))
async def test_a_recreated_lease_stays_with_the_leader(times: int) -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        # The standby starts first, so that its watch reports changes first.
        standby = await group.add_leader("b")
        leader = await group.add("a")
        await until(lambda: leader.balancer.proxy.is_relaying)
        standby.election.shut_down()
        await until(lambda: leader.is_leader and standby.balancer.proxy.is_relaying)
        standby.election._shutting_down = False
        for _ in range(times + 1):
            group.cluster.delete_lease()
            group.cluster.create_lease()
            await until(lambda: group.cluster.holder == "a")

        assert (leader.is_leader, standby.is_leader) == (True, False)
        assert standby.balancer.metric("leadership_acquired_total") == 1


async def test_a_release_whose_response_is_lost_does_not_make_two_leaders() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        clients = [await leader.balancer.start_request(post("/completion")) for _ in "123"]
        await llama.wait_calls(1)
        group.cluster.lose_responses = 1
        leader.election.shut_down()
        await until(lambda: standby.is_leader and leader.balancer.proxy.is_relaying)

        for number, client in enumerate(clients):
            await llama.proceed(number)
            assert (await client.response()).status == 200
        assert (llama.overcommitted, leader.is_leader) == (0, False)


async def test_an_acquisition_whose_response_is_lost_makes_a_leader() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        group.cluster.lose_responses = 1
        leader = await group.add_leader("a")

        assert (await leader.balancer.request(post("/completion"))).status == 200


@pytest.mark.parametrize(
    "spec",
    [
        {"holderIdentity": "c"},
        {"holderIdentity": "", "leaseTransitions": "many"},
        {"holderIdentity": "c", "leaseTransitions": 2**31 - 1},
        None,
    ],
)
async def test_an_invalid_lease_stops_no_balancer(spec: dict[str, object] | None) -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        members = [await group.add_leader("a"), await group.add_standby("b")]

        def edit(lease: dict[str, object]) -> None:
            lease["spec"] = spec and {"leaseTransitions": 7, **spec}

        group.cluster.edit_lease(edit)
        await until(lambda: group.cluster.holder in {"a", "b"})
        await until(lambda: sum(member.is_leader for member in members) == 1)
        for member in members:
            assert (await member.balancer.request(post("/completion"))).status == 200
            assert not member.task.done()


async def test_a_balancer_that_shuts_down_leads_if_it_has_queued_requests_and_is_alone() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        await leader.kill()
        standby.election.shut_down()

        assert (await standby.balancer.request(post("/completion"))).status == 200


async def test_a_leader_that_shuts_down_without_an_api_server_serves_the_standbys() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        group.cluster.fail(Unreachable(0, "Unreachable", "no route"))
        leader.election.shut_down()
        handover = asyncio.ensure_future(leader.election.wait_handover(10))
        for _ in range(20):
            assert (await standby.balancer.request(post("/completion"))).status == 200
        assert (leader.is_leader, handover.done()) == (True, False)

        group.cluster.recover()
        leader.election._release_at = 0
        await handover
        await until(lambda: standby.is_leader)
        assert (await standby.balancer.request(post("/completion"))).status == 200


async def test_waiting_for_a_handover_ends_without_standbys_or_after_its_timeout() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.election.shut_down()
        await leader.election.wait_handover(10)
        assert leader.is_leader

        group.cluster.fail(Unreachable(0, "Unreachable", "no route"))
        leader.election.on_peer_probe("b", candidate=True)
        await leader.election.wait_handover(0.01)
        assert leader.is_leader


async def test_a_leader_that_is_no_longer_probed_reads_the_lease() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.election.on_peer_probe("c", candidate=True)
        group.cluster.watches_stalled = True
        lease = LeaseRecord.read(group.cluster.lease)
        group.cluster.add_pod(Peer("c", "127.0.0.1:1", "127.0.0.1:1"))
        group.cluster.put(manifest(*LEASE_NAME, "c", lease, wall_time()))
        await until(lambda: not leader.is_leader)


async def test_a_balancer_suspended_while_acquiring_reads_the_lease_before_it_leads() -> None:
    timeouts = replace(FAST_ELECTION, settle=0.4)
    async with FakeLlama(1) as llama, run_group(llama, timeouts=timeouts) as group:
        standby = await group.add("b")
        await until(lambda: group.cluster.holder == "b")
        group.cluster.watches_stalled = True

        def change(lease: dict[str, object]) -> None:
            lease["spec"] = {"holderIdentity": "c", "leaseTransitions": 9}

        group.cluster.edit_lease(change)
        await until(lambda: standby.election.lease and standby.election.lease.transitions == 9)
        assert standby.balancer.metric("leadership_acquired_total") == 0


async def test_a_standby_keeps_no_connections_to_replicas() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        clients = [await leader.balancer.start_request(post("/completion")) for _ in "12"]
        await llama.wait_calls(2)
        await llama.proceed(0)
        await clients[0].response()
        standby = await group.add_standby("b")
        leader.election.shut_down()
        await until(lambda: standby.is_leader)
        await llama.proceed(1)
        await clients[1].response()

        await until(lambda: not any(call.writer in llama._writers for call in llama.calls))


async def test_a_balancer_that_shuts_down_is_never_ready() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        balancer = (await group.add_leader("a")).balancer
        balancer.admin.shutting_down = balancer.admin.ready = True
        async with await RawClient.connect(balancer.metrics_port) as client:
            assert (await client.request(get("/ready"))).status == 503


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_head_requests_and_http_1_0_clients_are_relayed(version: str) -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        await group.add_leader("a")
        standby = await group.add_standby("b")
        async with await standby.balancer.connect() as client:
            await client.send(get("/health", "Connection: close", method="HEAD", version=version))
            response = await client.response(to_head=True)
            assert (response.status, await client.at_end()) == (200, True)
        client = await standby.balancer.start_request(post("/completion", version=version))
        await llama.proceed(0)
        assert (await client.response()).body == b"data: first\n\ndata: last\n\n"


async def test_a_request_without_a_connection_yet_is_requeued_when_leadership_is_lost() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.task.cancel()
        proxy = leader.balancer.proxy
        async with await leader.balancer.connect() as client:
            await client.send(post("/completion"))
            while not proxy.active:  # noqa: ASYNC110 (until polls too rarely)
                await asyncio.sleep(0)
            assert [request._connection for request in proxy.active] == [None]
            proxy.become_standby(None)
            await until(lambda: proxy.dispatcher.queued == 1)
            assert (llama.calls, proxy.dispatcher.busy_slots) == ([], 0)
            proxy.become_leader()
            assert (await client.response()).status == 200


def update_metadata(fields: Manifest, lease: Manifest) -> None:
    lease["metadata"].update(fields)


async def test_after_the_restore_of_a_backup_one_balancer_leads() -> None:
    async with FakeLlama(2) as llama, run_group(llama) as group:
        first = await group.add_leader("first")
        backup = group.cluster.copy()
        await first.kill()
        second = await group.add_leader("second")
        for number in "123456789":
            change = partial(update_metadata, {"labels": {"number": number}})
            group.cluster.edit_lease(change)
        newest = group.cluster.lease["metadata"]["resourceVersion"]
        await until(lambda: second.election.lease and second.election.lease.version == newest)

        pod = second.peers.find("second")
        assert pod
        group.cluster.restore(backup)
        group.cluster.add_pod(pod)  # as the controller of EndpointSlices does
        third = await group.add("third")

        def has_one_leader() -> bool:
            alive = {"second": second, "third": third}
            leaders = [name for name, each in alive.items() if each.is_leader]
            return leaders == [group.cluster.holder]

        await until(lambda: any(each.balancer.proxy.is_relaying for each in (second, third)))
        assert has_one_leader()


async def test_a_leader_whose_token_is_invalid_hands_over_its_queue() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        clients = [await leader.balancer.start_request(post("/completion"))]
        await llama.wait_calls(1)
        clients.append(await standby.balancer.start_request(post("/completion")))
        await until(lambda: leader.balancer.dispatcher.queued == 1)
        leader.invalidate_token()
        group.cluster.watches_stalled = True
        leader.election.shut_down()
        await leader.election.wait_handover(TEST_SECONDS)

        assert (leader.is_leader, standby.is_leader, group.cluster.holder) == (False, True, "b")
        await until(lambda: leader.balancer.proxy.is_relaying)
        clients.append(await leader.balancer.start_request(post("/completion")))
        for number, client in enumerate(clients):
            await llama.proceed(number)
            assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        assert llama.overcommitted == 0
        assert await leader.balancer.proxy.drain(5) == 0


async def test_a_leader_continues_where_the_api_server_rejects_all_balancers() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader, standby = await group.add_leader("a"), await group.add_standby("b")
        for member in (leader, standby):
            member.invalidate_token()
        leader.election.shut_down()
        await until(lambda: leader.election.has_released)
        await until(lambda: not leader.election.has_released)

        assert (leader.is_leader, standby.is_leader) == (True, False)
        for member in (leader, standby):
            assert (await member.balancer.request(post("/completion"))).status == 200
        assert llama.overcommitted == 0


async def test_a_balancer_follows_the_successor_of_its_successor() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        members = [await group.add_leader("a"), await group.add_standby("b")]
        members.append(await group.add_standby("c"))
        members[0].invalidate_token()
        members[0].election.shut_down()
        await members[0].election.wait_handover(TEST_SECONDS)
        first = next(each for each in members if each.is_leader)
        await first.kill()
        last = next(each for each in members[1:] if each is not first)
        await until(lambda: last.is_leader and members[0].balancer.proxy.is_relaying)

        assert (await members[0].balancer.request(post("/completion"))).status == 200
