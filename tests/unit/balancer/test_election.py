import asyncio
import json

import pytest

from election_harness import proof_header, run_group
from fake_llama import FakeLlama, stream_two_events
from raw_http import RawClient, get, post
from slotkeeper.kube.cluster import Unreachable
from wait_until import until


async def test_one_balancer_leads_and_the_other_relays_to_it() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")

        for member in (leader, standby):
            response = await member.balancer.request(post("/completion", b'{"prompt": "hi"}'))
            assert response.status == 200
            assert response.headers["x-slotkeeper-wait-seconds"] == "0.000"
            models = await member.balancer.request(get("/v1/models"))
            assert json.loads(models.body)["data"][0]["id"] == "tiny"
        assert (leader.is_leader, standby.is_leader, group.cluster.holder) == (True, False, "a")
        assert "x-slotkeeper-hops" not in llama.calls[1].headers
        assert standby.balancer.metric("relayed_requests_total") == 2
        assert leader.balancer.metric("requests_total", outcome="completed", code="200") == 2


async def test_two_balancers_that_start_together_elect_one_leader() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        members = [await group.add(name) for name in "ab"]
        await until(lambda: sum(member.is_leader for member in members) == 1)
        await until(lambda: sum(member.balancer.proxy.is_relaying for member in members) == 1)
        for member in members:
            assert (await member.balancer.request(post("/completion"))).status == 200


async def test_requests_of_all_balancers_share_one_queue_and_its_slots() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        clients = [
            await member.balancer.start_request(post("/completion"))
            for member in (leader, standby)
            for _ in "123"
        ]
        await until(lambda: leader.balancer.dispatcher.queued == 4)
        for number, _ in enumerate(clients):
            await llama.proceed(number)
        for client in clients:
            assert (await client.response()).status == 200
        assert (llama.overcommitted, llama.max_busy) == (0, 2)


async def test_a_standby_succeeds_a_killed_leader_and_counts_slots_still_busy() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        await leader.balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        llama.frees_slots.clear()  # it has not noticed yet that its client has disconnected
        await leader.kill()
        await until(lambda: standby.is_leader and standby.balancer.dispatcher.has_replica)

        assert group.cluster.holder == "b"
        clients = [await standby.balancer.start_request(post("/completion")) for _ in "12"]
        await llama.wait_calls(2)
        assert standby.balancer.dispatcher.queued == 1
        llama.frees_slots.set()
        for number, client in enumerate(clients, start=1):
            await llama.proceed(number)
            assert (await client.response()).status == 200
        assert llama.overcommitted == 0
        await standby.balancer.wait_idle()


async def test_requests_that_arrive_without_a_leader_are_queued_and_served() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        await leader.kill()
        clients = [await standby.balancer.start_request(post("/completion")) for _ in "123"]
        for client in clients:
            assert (await client.response()).status == 200
        assert standby.is_leader


async def test_a_leader_that_shuts_down_hands_over_its_queue_and_drains() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        running = await leader.balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        queued = [await leader.balancer.start_request(post("/completion")) for _ in "12"]

        leader.election.shut_down()
        await until(lambda: standby.is_leader and standby.balancer.dispatcher.has_replica)
        await until(lambda: standby.balancer.dispatcher.queued == 2)
        # The new leader does not reuse the slot of what still runs through the old one.
        assert (len(llama.calls), standby.balancer.dispatcher.busy_slots) == (1, 1)

        for number, client in enumerate([running, *queued]):
            await llama.proceed(number)
            assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        assert llama.overcommitted == 0
        # Requests that still arrive at the old leader are served.
        late = await leader.balancer.start_request(post("/completion"))
        await llama.proceed(3)
        assert (await late.response()).status == 200
        assert await leader.balancer.proxy.drain(5) == 0


async def test_a_leader_that_shuts_down_alone_continues_until_there_is_a_successor() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.election.shut_down()
        assert (await leader.balancer.request(post("/completion"))).status == 200
        assert leader.is_leader

        successor = await group.add("b")
        await until(lambda: successor.is_leader)
        assert (await leader.balancer.request(post("/completion"))).status == 200
        assert llama.overcommitted == 0


async def test_a_lease_without_a_successor_is_released_at_the_end() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.election.shut_down()
        await leader.election.release()

        assert group.cluster.holder == ""


async def test_a_balancer_that_restarts_under_its_name_keeps_its_lease() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        await (await group.add_leader("a")).kill()
        restarted = await group.add_leader("a")

        assert (await restarted.balancer.request(post("/completion"))).status == 200


async def test_without_an_api_server_the_leader_continues_and_has_no_successor() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        group.cluster.fail(Unreachable(0, "Unreachable", "no route"))
        leader.balancer.proxy.lease_valid_until = 0  # its process was suspended for a while

        for member in (leader, standby):
            assert (await member.balancer.request(post("/completion"))).status == 200
        assert (leader.is_leader, standby.is_leader) == (True, False)


async def test_a_suspended_leader_dispatches_nothing_before_it_has_read_the_lease() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        leader.task.cancel()  # or it would read the Lease
        leader.balancer.proxy.lease_valid_until = 0
        client = await leader.balancer.start_request(post("/completion"))
        assert leader.balancer.dispatcher.queued == 1
        standby = await group.add("b")

        # The other balancer has acquired the Lease meanwhile.
        def change(lease: dict[str, object]) -> None:
            lease["spec"] = {"holderIdentity": "b", "leaseTransitions": 9}

        group.cluster.edit_lease(change)
        await until(lambda: standby.is_leader)
        leader.task = asyncio.ensure_future(leader.election.run())
        assert (await client.response()).status == 200
        assert not leader.is_leader
        assert leader.balancer.metric("relayed_requests_total") == 1


async def test_a_lease_that_was_deleted_and_created_again_stays_with_the_leader() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        group.cluster.delete_lease()
        group.cluster.create_lease()
        await until(lambda: group.cluster.holder == "a")

        assert leader.is_leader
        assert (await leader.balancer.request(post("/completion"))).status == 200


async def test_a_request_relayed_in_a_circle_is_rejected() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        other = await group.add_standby("b")
        relayed = proof_header(other, leader)
        response = await leader.balancer.request(
            post("/completion", b"{}", relayed, "X-Slotkeeper-Hops: 20")
        )

        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert response.error_code == "no_leader"


@pytest.mark.parametrize(("query", "candidate"), [("", False), ("?candidate=true", True)])
async def test_a_balancer_reports_to_others_its_identity_and_whether_it_leads(
    query: str, candidate: bool
) -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        other = await group.add("b")
        other.task.cancel()
        async with await RawClient.connect(leader.balancer.metrics_port) as client:
            request = get(f"/peer{query}", proof_header(other, leader))
            status = json.loads((await client.request(request)).body)

        assert status == {"identity": "a", "leader": True, "released": False}
        assert (leader.election._silent_for < 1) is candidate


async def test_local_routes_are_served_locally_when_the_leader_is_unreachable() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        for server in (leader.balancer.client_server, leader.balancer.metrics_server):
            await server.close()

        props = await standby.balancer.request(get("/props"))
        assert json.loads(props.body)["model_alias"] == "tiny"


async def test_local_routes_relayed_in_a_circle_are_served_locally() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")

        relayed = (proof_header(leader, standby), "X-Slotkeeper-Hops: 3")
        client = await standby.balancer.start_request(get("/props", *relayed))
        standby.task.cancel()
        standby.balancer.proxy.become_leader()
        assert json.loads((await client.response()).body)["model_alias"] == "tiny"
