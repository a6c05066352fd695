"""Whoever scales asks a Service, and meets any of the balancers: all say what the leader knows."""

import asyncio
import json
from typing import Any

from election_harness import PLACE, Member, _wall, family
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, Response, get, post
from slotkeeper.balancer.election.lease import LeaseRecord, Peer, manifest
from slotkeeper.kube.cluster import Unreachable
from slotkeeper.kube.kinds import LEASES
from wait_until import until


async def asked(member: Member, path: str = "/autoscaling") -> Response:
    async with await RawClient.connect(member.made.metrics_port) as client:
        return await client.ask(get(path))


async def numbers(member: Member, path: str = "/autoscaling") -> Any:
    return json.loads((await asked(member, path)).body)


async def test_one_that_stands_by_says_the_demand_that_the_leader_knows() -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        for member in (leader, standby):
            await member.made.start(post("/completion"))
        await until(lambda: leader.made.dispatcher.queued == 1)

        said = await numbers(standby)

        assert (said["demand"], said["leader"], said["slots"]["total"]) == (2, True, 1)


async def test_its_own_numbers_are_said_where_they_are_asked_for() -> None:
    async with FakeLlama(1, when_told) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        await leader.made.start(post("/completion"))

        said = await numbers(standby, "/autoscaling?scope=local")

        assert (said["demand"], said["leader"]) == (0, False)
        assert (await numbers(leader, "/autoscaling?scope=local"))["demand"] == 1


async def test_no_number_is_said_while_nobody_leads() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        leader = await they.add_leader("a")
        standby = await they.add_standby("b")
        they.cluster.refuse = lambda *_: Unreachable(0, "Unreachable", "no route")
        await leader.die()

        refused = await asked(standby)

        assert refused.status == 503
        assert json.loads(refused.body)["error"]["code"] == "no_leader"
        assert refused.headers["retry-after"] == "1"


async def test_a_holder_that_does_not_lead_is_not_believed() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        first = await they.add_leader("a")
        standby = await they.add_standby("b")
        held = LeaseRecord.read(they.cluster.objects[(LEASES, *PLACE)])
        itself = Peer("c", standby.succession.me.clients, standby.succession.me.metrics)
        first.running.cancel()
        they.cluster.put(manifest(*PLACE, itself, held, _wall()))
        await until(lambda: standby.succession.lease and standby.succession.lease.holder == itself)

        assert (await asked(standby)).status == 503


async def test_one_that_asks_and_goes_away_is_no_fault() -> None:
    async with FakeLlama(1) as llama, family(llama) as they:
        await they.add_leader("a")
        standby = await they.add_standby("b")
        gone = await RawClient.connect(standby.made.metrics_port)
        await gone.send(get("/autoscaling"))
        gone.reset()

        assert (await numbers(standby))["leader"] is True
        await asyncio.sleep(0)
        assert not [line for line in standby.made.lines() if line.get("outcome") == "failed"]
