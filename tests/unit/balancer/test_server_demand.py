"""Every balancer reports the leader's demand, since autoscalers reach any of them."""

import asyncio
from dataclasses import replace

from election_harness import LEASE_NAME, run_group, wall_time
from fake_llama import FakeLlama, stream_two_events
from raw_http import RawClient, get, post
from slotkeeper.balancer.election.lease import LeaseRecord, manifest
from slotkeeper.kube.cluster import Unreachable
from wait_until import until


async def test_a_standby_reports_the_leaders_demand() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        for member in (leader, standby):
            await member.balancer.start_request(post("/completion"))
        await until(lambda: leader.balancer.dispatcher.queued == 1)

        report = await standby.balancer.admin_json("/autoscaling")

        assert (report["demand"], report["leader"], report["slots"]["total"]) == (2, True, 1)


async def test_the_local_scope_is_the_balancers_own_demand() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        await leader.balancer.start_request(post("/completion"))

        path = "/autoscaling?scope=local"
        report = await standby.balancer.admin_json(path)

        assert (report["demand"], report["leader"]) == (0, False)
        assert (await leader.balancer.admin_json(path))["demand"] == 1


async def test_without_a_leader_there_is_no_report() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        group.cluster.fail(Unreachable(0, "Unreachable", "no route"))
        await leader.kill()

        response = await standby.balancer.admin_request("/autoscaling")

        assert (response.status, response.error_code) == (503, "no_leader")
        assert response.headers["retry-after"] == "1"


async def test_a_report_of_a_holder_that_does_not_lead_is_not_used() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        lease = LeaseRecord.read(group.cluster.lease)
        itself = standby.peers.find("b")
        assert itself
        leader.task.cancel()
        group.cluster.add_pod(replace(itself, identity="c"))
        group.update_peers()
        group.cluster.put(manifest(*LEASE_NAME, "c", lease, wall_time()))
        await until(lambda: standby.election.lease and standby.election.lease.holder == "c")

        assert (await standby.balancer.admin_request("/autoscaling")).status == 503


async def test_a_client_that_disconnects_early_causes_no_error() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        await group.add_leader("a")
        standby = await group.add_standby("b")
        client = await RawClient.connect(standby.balancer.metrics_port)
        await client.send(get("/autoscaling"))
        client.reset()

        assert (await standby.balancer.admin_json("/autoscaling"))["leader"] is True
        await asyncio.sleep(0)
        assert not [
            line for line in standby.balancer.access_log() if line.get("outcome") == "failed"
        ]


async def test_the_leader_reports_the_builds_of_its_replicas() -> None:
    async with FakeLlama(1) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        aggregate = leader.balancer.proxy.aggregate
        await until(lambda: bool(aggregate.builds))

        own = await standby.balancer.admin_json("/autoscaling?scope=local")

        assert (await leader.balancer.admin_json("/autoscaling"))["builds"] == ["b11669-Debian"]
        assert "builds" not in own
        leader.balancer.proxy.set_replicas({})
        await until(lambda: not aggregate.builds)
