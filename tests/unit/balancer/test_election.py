import asyncio
import json

import pytest

from election_harness import PLACE, family
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.kube.cluster import Unreachable
from slotkeeper.kube.kinds import LEASES
from wait_until import until


async def test_one_leads_and_the_other_relays_to_it() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")

        for member in (leader, standby):
            answer = await member.made.ask(post("/completion", b'{"prompt": "hi"}'))
            assert answer.status == 200
            assert answer.headers["x-slotkeeper-wait-seconds"] == "0.000"
            models = await member.made.ask(get("/v1/models"))
            assert json.loads(models.body)["data"][0]["id"] == "tiny"
        assert (leader.leads, standby.leads, they.cluster.holder) == (True, False, "a")
        assert "x-slotkeeper-hops" not in llama.calls[1].headers
        assert standby.made.metric("relayed_requests_total") == 2
        assert leader.made.metric("requests_total", outcome="completed", code="200") == 2


async def test_two_that_start_at_once_agree_on_one() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        both = [await they.add(name) for name in "ab"]
        await until(lambda: sum(each.leads for each in both) == 1)
        await until(lambda: sum(each.made.proxy.is_relaying for each in both) == 1)
        for each in both:
            assert (await each.made.ask(post("/completion"))).status == 200


async def test_one_line_for_all_balancers_slots_are_not_handed_out_twice() -> None:
    async with FakeLlama(2, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        clients = [
            await each.made.start(post("/completion")) for each in (leader, standby) for _ in "123"
        ]
        await until(lambda: leader.made.dispatcher.queued == 4)
        for number, _ in enumerate(clients):
            (await llama.called(number + 1))[number].go.set()
        for client in clients:
            assert (await client.response()).status == 200
        assert (llama.over_commits, llama.most_at_once) == (0, 2)


async def test_a_killed_leader_is_followed_by_its_standby_which_counts_what_still_runs() -> None:
    async with FakeLlama(2, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        await leader.made.start(post("/completion"))
        await llama.called(1)
        llama.lets_go.clear()  # it has not noticed yet that its client is gone
        await leader.die()
        await until(lambda: standby.leads and standby.made.dispatcher.has_replica)

        assert they.cluster.holder == "b"
        clients = [await standby.made.start(post("/completion")) for _ in "12"]
        await llama.called(2)
        assert standby.made.dispatcher.queued == 1
        llama.lets_go.set()
        for number, client in enumerate(clients, start=1):
            (await llama.called(number + 1))[number].go.set()
            assert (await client.response()).status == 200
        assert llama.over_commits == 0
        await standby.made.at_rest()


async def test_requests_that_come_while_nobody_leads_wait_and_are_answered() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        await leader.die()
        clients = [await standby.made.start(post("/completion")) for _ in "123"]
        for client in clients:
            assert (await client.response()).status == 200
        assert standby.leads


async def test_a_leader_that_ends_hands_over_what_waits_and_ends_what_runs() -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        running = await leader.made.start(post("/completion"))
        await llama.called(1)
        waiting = [await leader.made.start(post("/completion")) for _ in "12"]

        leader.succession.end()
        await until(lambda: standby.leads and standby.made.dispatcher.has_replica)
        await until(lambda: standby.made.dispatcher.queued == 2)
        # The slot of what still runs through the old one is not handed out by the new one.
        assert (len(llama.calls), standby.made.dispatcher.busy_slots) == (1, 1)

        for number, client in enumerate([running, *waiting]):
            (await llama.called(number + 1))[number].go.set()
            assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        assert llama.over_commits == 0
        # Whoever still comes to the old one is served.
        late = await leader.made.start(post("/completion"))
        (await llama.called(4))[3].go.set()
        assert (await late.response()).status == 200
        assert await leader.made.proxy.drain(5) == 0


async def test_a_leader_that_ends_alone_goes_on_until_another_comes() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.succession.end()
        assert (await leader.made.ask(post("/completion"))).status == 200
        assert leader.leads

        successor = await they.add("b")
        await until(lambda: successor.leads)
        assert (await leader.made.ask(post("/completion"))).status == 200
        assert llama.over_commits == 0


async def test_a_lease_that_nobody_took_over_is_released_at_the_end() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.succession.end()
        await leader.succession.release()

        assert they.cluster.holder == ""


async def test_one_that_restarts_under_its_name_takes_its_lease_back() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        await (await they.add_leader("a")).die()
        again = await they.add_leader("a")

        assert (await again.made.ask(post("/completion"))).status == 200


async def test_while_the_api_is_away_the_leader_goes_on_and_nobody_takes_over() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        they.cluster.refuse = lambda *_: Unreachable(0, "Unreachable", "no route")
        leader.made.proxy.lease_valid_until = 0  # its process stood still for a while

        for member in (leader, standby):
            assert (await member.made.ask(post("/completion"))).status == 200
        assert (leader.leads, standby.leads) == (True, False)


async def test_a_leader_whose_process_stood_still_hands_out_nothing_before_it_has_looked() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        leader.running.cancel()  # what would look
        leader.made.proxy.lease_valid_until = 0
        client = await leader.made.start(post("/completion"))
        assert leader.made.dispatcher.queued == 1
        standby = await they.add("b")

        # Another has taken the Lease meanwhile.
        def change(lease: dict[str, object]) -> None:
            lease["spec"] = {"holderIdentity": "", "leaseTransitions": 9}

        they.cluster.edit(LEASES, *PLACE, change)
        await until(lambda: standby.leads)
        leader.running = asyncio.ensure_future(leader.succession.run())
        assert (await client.response()).status == 200
        assert not leader.leads
        assert leader.made.metric("relayed_requests_total") == 1


async def test_a_lease_that_was_deleted_and_made_anew_stays_with_the_leader() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        they.cluster.remove(LEASES, *PLACE)
        they.cluster.make_lease()
        await until(lambda: they.cluster.holder == "a")

        assert leader.leads
        assert (await leader.made.ask(post("/completion"))).status == 200


async def test_a_request_that_goes_round_in_circles_is_refused() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        standby = await they.add("b")
        refused = await standby.made.ask(post("/completion", b"{}", "X-Slotkeeper-Hops: 20"))

        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert json.loads(refused.body)["error"]["code"] == "no_leader"


@pytest.mark.parametrize("page", ["/peer", "/peer?identity=b"])
async def test_a_balancer_says_who_it_is_and_whether_it_leads(page: str) -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        async with await RawClient.connect(leader.made.metrics_port) as client:
            said = json.loads((await client.ask(get(page))).body)

        assert said == {"identity": "a", "leader": True}


async def test_what_a_balancer_answers_itself_never_comes_from_a_replica() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        for server in (leader.made.clients, leader.made.metrics):
            await server.close()

        props = await standby.made.ask(get("/props"))
        assert json.loads(props.body)["model_alias"] == "tiny"


async def test_nor_when_it_has_been_sent_to_and_fro_between_balancers() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        await they.add_leader("a")
        standby = await they.add_standby("b")

        asked = await standby.made.start(get("/props", "X-Slotkeeper-Hops: 3"))
        standby.running.cancel()
        standby.made.proxy.become_leader()
        assert json.loads((await asked.response()).body)["model_alias"] == "tiny"
