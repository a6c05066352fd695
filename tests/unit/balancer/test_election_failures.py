"""Several balancers, an API server, a network and people that do what they should not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from election_harness import PLACE, QUICK, Family, _wall, family
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.balancer.election.lease import LeaseRecord, Peer, manifest
from slotkeeper.kube.cluster import Unreachable
from slotkeeper.kube.kinds import LEASES
from slotkeeper.scheduling import QueueLimits
from wait_until import until


class Ghost:
    """A balancer that leads, takes requests, and never answers one; then nothing is heard of it,
    though nobody closes its connections."""

    def __init__(self) -> None:
        self.silent = False
        self.got = 0
        self.at = ""

    async def metrics(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not self.silent:
            body = json.dumps({"identity": "ghost", "leader": True}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()
        writer.close()

    async def clients(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.got += 1
        await reader.read()
        writer.close()


@asynccontextmanager
async def ghost(they: Family) -> AsyncIterator[Ghost]:
    made = Ghost()
    servers = [
        await asyncio.start_server(side, "127.0.0.1", 0) for side in (made.clients, made.metrics)
    ]
    at = [f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]

    made.at = at[0]

    def hold(lease: dict[str, object]) -> None:
        lease["metadata"]["annotations"] = {  # type: ignore[index]
            "slotkeeper.dev/client-address": at[0],
            "slotkeeper.dev/metrics-address": at[1],
        }
        lease["spec"] = {"holderIdentity": "ghost", "leaseTransitions": 1}

    they.cluster.edit(LEASES, *PLACE, hold)
    try:
        yield made
    finally:
        for server in servers:
            server.close()


async def test_requests_relayed_to_a_balancer_that_vanished_without_a_word_are_answered() -> None:
    async with FakeLlama(2) as llama, family(llama) as they, ghost(they) as gone:
        standby = await they.add_standby("b")
        clients = [await standby.made.start(post("/completion")) for _ in "12"]
        await until(lambda: gone.got == 2)
        gone.silent = True

        for client in clients:
            assert (await client.response()).status == 200
        assert (standby.leads, len(llama.calls)) == (True, 2)


async def test_so_is_one_whose_client_got_signs_of_life_before_it_was_relayed() -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        standby = await they.add("b")
        standby.running.cancel()
        proxy = standby.made.proxy
        proxy.become_standby(None)
        proxy.keepalive.seconds = 0.01
        client = await standby.made.start(post("/completion", b'{"stream":true}'))
        await client.reader.readuntil(b": queued, position 1\n\n")
        async with ghost(they) as gone:
            proxy.become_standby(gone.at)
            await until(lambda: gone.got == 1)
            proxy.become_standby(None)
            proxy.peer_lost(gone.at)
            proxy.become_leader()
            (await llama.called(1))[0].go.set()
            await client.reader.readuntil(b"data: last\n\n")


async def test_a_client_that_leaves_meanwhile_is_not_asked_for() -> None:
    async with FakeLlama(2) as llama, family(llama) as they, ghost(they) as gone:
        standby = await they.add_standby("b")
        client = await standby.made.start(post("/completion"))
        await until(lambda: gone.got == 1)
        gone.silent = True
        await client.close()
        await until(lambda: standby.leads and standby.made.dispatcher.has_replica)
        await standby.made.at_rest()

        assert llama.calls == []


async def test_a_standby_has_no_bounds_of_its_own() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        await they.add_leader("a")
        standby = await they.add_standby("b")
        standby.made.dispatcher.limits = QueueLimits(max_queued=0, max_queued_bytes=1)

        assert (await standby.made.ask(post("/completion"))).status == 200


async def test_a_lease_deleted_while_it_is_handed_over_stays_with_the_one_that_had_it() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.succession.on_peer_probe("of one that never comes")
        leader.succession.end()
        await until(lambda: they.cluster.holder == "")
        they.cluster.remove(LEASES, *PLACE)

        assert (await leader.made.ask(post("/completion"))).status == 200
        they.cluster.make_lease()
        await until(lambda: they.cluster.holder == "a")
        assert leader.leads


@pytest.mark.parametrize("times", range(3))
async def test_a_lease_made_anew_is_not_taken_from_the_one_that_leads(times: int) -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        # The second starts first, so that it is told first.
        standby = await they.add_leader("b")
        leader = await they.add("a")
        await until(lambda: leader.made.proxy.is_relaying)
        standby.succession.end()
        await until(lambda: leader.leads and standby.made.proxy.is_relaying)
        standby.succession._ending = False
        for _ in range(times + 1):
            they.cluster.remove(LEASES, *PLACE)
            they.cluster.make_lease()
            await until(lambda: they.cluster.holder == "a")

        assert (leader.leads, standby.leads) == (True, False)
        assert standby.made.metric("leadership_acquired_total") == 1


async def test_a_lease_given_back_though_its_answer_was_lost_is_not_led_by_two() -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        clients = [await leader.made.start(post("/completion")) for _ in "123"]
        await llama.called(1)
        they.cluster.lost_answers = 1
        leader.succession.end()
        await until(lambda: standby.leads and leader.made.proxy.is_relaying)

        for number, client in enumerate(clients):
            (await llama.called(number + 1))[number].go.set()
            assert (await client.response()).status == 200
        assert (llama.over_commits, leader.leads) == (0, False)


async def test_a_lease_taken_though_its_answer_was_lost_is_led() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        they.cluster.lost_answers = 1
        leader = await they.add_leader("a")

        assert (await leader.made.ask(post("/completion"))).status == 200


@pytest.mark.parametrize(
    ("annotations", "spec"),
    [
        ({}, {"holderIdentity": "c"}),
        ({"clients": "x", "metrics": "127.0.0.1:1"}, {"holderIdentity": "c"}),
        ({"clients": "127.0.0.1:1", "metrics": "1.2.3.4:http"}, {"holderIdentity": "c"}),
        ({"clients": ":80", "metrics": "127.0.0.1:99999"}, {"holderIdentity": "c"}),
        ({}, {"holderIdentity": "", "leaseTransitions": "many"}),
        ({}, None),
    ],
)
async def test_a_lease_edited_into_nonsense_costs_no_balancer(
    annotations: dict[str, str], spec: dict[str, object] | None
) -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        both = [await they.add_leader("a"), await they.add_standby("b")]

        def edit(lease: dict[str, object]) -> None:
            said = {f"slotkeeper.dev/{key}": value for key, value in annotations.items()}
            lease["metadata"]["annotations"] = said  # type: ignore[index]
            lease["spec"] = spec and {"leaseTransitions": 7, **spec}

        they.cluster.edit(LEASES, *PLACE, edit)
        await until(lambda: they.cluster.holder in {"a", "b"})
        await until(lambda: sum(each.leads for each in both) == 1)
        for each in both:
            assert (await each.made.ask(post("/completion"))).status == 200
            assert not each.running.done()


async def test_one_that_ends_leads_if_requests_wait_there_and_nobody_else_is_left() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        await leader.die()
        standby.succession.end()

        assert (await standby.made.ask(post("/completion"))).status == 200


async def test_one_that_ends_while_the_api_is_away_serves_the_others_until_it_is_back() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        they.cluster.refuse = lambda *_: Unreachable(0, "Unreachable", "no route")
        leader.succession.end()
        handed_over = asyncio.ensure_future(leader.succession.wait_handover(10))
        for _ in range(20):
            assert (await standby.made.ask(post("/completion"))).status == 200
        assert (leader.leads, handed_over.done()) == (True, False)

        they.cluster.refuse = lambda *_: None
        leader.succession._release_at = 0
        await handed_over
        await until(lambda: standby.leads)
        assert (await standby.made.ask(post("/completion"))).status == 200


async def test_one_that_ends_alone_or_waits_too_long_does_not_wait_for_a_successor() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.succession.end()
        await leader.succession.wait_handover(10)
        assert leader.leads

        they.cluster.refuse = lambda *_: Unreachable(0, "Unreachable", "no route")
        leader.succession.on_peer_probe("b")
        await leader.succession.wait_handover(0.01)
        assert leader.leads


async def test_a_leader_that_is_asked_no_more_looks_at_the_lease() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.succession.on_peer_probe("c")
        they.cluster.deaf = True
        held = they.cluster.objects[(LEASES, *PLACE)]
        other = Peer("c", "127.0.0.1:1", "127.0.0.1:1")
        they.cluster.put(manifest(*PLACE, other, LeaseRecord.read(held), _wall()))
        await until(lambda: not leader.leads)


async def test_one_that_stood_still_while_it_took_the_lease_looks_again_before_it_leads() -> None:
    patience = replace(QUICK, settle=0.4)
    async with FakeLlama(1) as llama, family(llama, patience=patience) as they:
        standby = await they.add("b")
        await until(lambda: they.cluster.holder == "b")
        they.cluster.deaf = True

        def change(lease: dict[str, object]) -> None:
            lease["spec"] = {"holderIdentity": "c", "leaseTransitions": 9}

        they.cluster.edit(LEASES, *PLACE, change)
        await until(lambda: standby.succession.lease and standby.succession.lease.transitions == 9)
        assert standby.made.metric("leadership_acquired_total") == 0


async def test_one_that_stands_by_holds_no_connections_to_replicas() -> None:
    async with FakeLlama(2, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        clients = [await leader.made.start(post("/completion")) for _ in "12"]
        await llama.called(2)
        llama.calls[0].go.set()
        await clients[0].response()
        standby = await they.add_standby("b")
        leader.succession.end()
        await until(lambda: standby.leads)
        llama.calls[1].go.set()
        await clients[1].response()

        await until(lambda: not any(call.writer in llama._writers for call in llama.calls))


async def test_one_that_ends_is_not_ready_whatever_comes() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        made = (await they.add_leader("a")).made
        made.admin.ending = made.admin.ready = True
        async with await RawClient.connect(made.metrics_port) as client:
            assert (await client.ask(get("/ready"))).status == 503


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_head_and_an_old_client_are_relayed(version: str) -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        await they.add_leader("a")
        standby = await they.add_standby("b")
        async with await standby.made.client() as client:
            await client.send(get("/health", "Connection: close", method="HEAD", version=version))
            answer = await client.response(to_head=True)
            assert (answer.status, await client.at_end()) == (200, True)
        client = await standby.made.start(post("/completion", version=version))
        (await llama.called(1))[0].go.set()
        assert (await client.response()).body == b"data: first\n\ndata: last\n\n"


async def test_what_was_not_sent_yet_when_another_took_over_waits_for_that_one() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        standby = await they.add_leader("a")
        standby.running.cancel()
        proxy = standby.made.proxy
        async with await standby.made.client() as client:
            await client.send(post("/completion"))
            while not proxy.active:  # noqa: ASYNC110 (until would look too late)
                await asyncio.sleep(0)
            assert [each._connection for each in proxy.active] == [None]
            proxy.become_standby(None)
            await until(lambda: proxy.dispatcher.queued == 1)
            assert (llama.calls, proxy.dispatcher.busy_slots) == ([], 0)
            proxy.become_leader()
            assert (await client.response()).status == 200
