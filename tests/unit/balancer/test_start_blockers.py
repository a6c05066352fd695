"""Where no replica can start, whoever waits for one is told why, and soon."""

import json
from typing import Any

from balancer_harness import Balancer, balancer
from election_harness import PLACE, family
from fake_llama import FakeLlama, answer_at_once
from raw_http import RawClient, get, post
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.kube.kinds import LEASES
from slotkeeper.scheduling import QueueLimits
from wait_until import until

NOT_FOUND = StartBlocker("ModelNotFound", "GET http://models/a.gguf answered 404", permanent=True)
NO_GPU = StartBlocker("Unschedulable", "waiting for 1 nvidia.com/gpu", permanent=False)
PROMPT = {"prompt": "hello"}
SOON = QueueLimits(cold_start_timeout=600, blocked_timeout=0.02)
LATER = QueueLimits(cold_start_timeout=600, blocked_timeout=600)


async def demand(made: Balancer) -> Any:
    async with await RawClient.connect(made.metrics_port) as client:
        return json.loads((await client.ask(get("/autoscaling"))).body)


async def test_who_waits_is_told_the_reason_and_when_to_come_back() -> None:
    async with balancer(bounds=SOON) as made, await made.start(post("/completion")) as client:
        made.proxy.set_blocked(NOT_FOUND)

        response = await client.response()

        error = json.loads(response.body)["error"]
        assert (response.status, error["code"]) == (503, "server_unavailable")
        assert error["message"] == f"no replica can start: {NOT_FOUND.message}"
        assert response.headers["retry-after"] == "30"
        assert made.metric("start_blocked", reason="ModelNotFound") == 1


async def test_people_see_what_is_waited_for_in_vain() -> None:
    async with balancer() as made, await RawClient.connect(made.metrics_port) as people:
        made.proxy.set_blocked(NO_GPU)

        shown = json.loads((await people.ask(get("/debug/queue"))).body)["startBlocker"]

    assert shown == {"reason": NO_GPU.reason, "message": NO_GPU.message, "permanent": False}


async def test_who_comes_then_is_told_too_and_is_demand_all_the_same() -> None:
    async with balancer(bounds=QueueLimits(blocked_timeout=0)) as made:
        made.proxy.set_blocked(NOT_FOUND)

        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (503, "server_unavailable")
        assert (await demand(made))["peakDemand"] == 1


async def test_what_may_pass_is_waited_for_and_named_at_the_end() -> None:
    async with (
        balancer(bounds=QueueLimits(cold_start_timeout=0.05, blocked_timeout=0)) as made,
        await made.start(post("/completion")) as client,
    ):
        made.proxy.set_blocked(NO_GPU)

        response = await client.response()

        error = json.loads(response.body)["error"]
        assert (response.status, error["code"]) == (503, "cold_start_timeout")
        assert error["message"].endswith(f"in the time allowed: {NO_GPU.message}")


async def test_what_is_mended_in_time_is_answered() -> None:
    async with (
        FakeLlama(1, answer_at_once) as llama,
        balancer(bounds=LATER) as made,
        await made.start(post("/completion")) as client,
    ):
        made.proxy.set_blocked(NOT_FOUND)
        made.proxy.set_blocked(None)
        made.proxy.set_replicas({llama.name: True})

        assert (await client.response()).status == 200


async def test_while_a_replica_serves_nothing_is_in_the_way() -> None:
    async with FakeLlama(1, answer_at_once) as llama, balancer(llama, bounds=SOON) as made:
        made.proxy.set_blocked(NOT_FOUND)

        assert (await made.ask(post("/completion"))).status == 200
        assert made.dispatcher.start_blocker is None
        assert made.metric("start_blocked", reason="ModelNotFound") == 0


async def test_a_stream_that_waits_is_told_inside_of_it() -> None:
    body = json.dumps({**PROMPT, "stream": True}).encode()
    async with (
        balancer(bounds=LATER, heartbeat_seconds=0.005) as made,
        await made.start(post("/v1/chat/completions", body)) as client,
    ):
        await client.reader.readuntil(b": queued, position 1")
        made.dispatcher.limits = SOON
        made.proxy.set_blocked(NOT_FOUND)

        said = await client.reader.readuntil(b"}}")

        assert NOT_FOUND.message.encode() in said


async def test_all_balancers_read_it_from_their_lease() -> None:
    async with family() as they:
        leader, standby = await they.add_leader("a"), await they.add_standby("b")
        leader.made.dispatcher.limits = SOON
        annotations = {"slotkeeper.dev/start-blocker": NOT_FOUND.to_annotation()}
        they.cluster.edit(
            LEASES, *PLACE, lambda lease: lease["metadata"]["annotations"].update(annotations)
        )

        for member in (leader, standby):
            assert (await member.made.ask(post("/completion"))).error_code == "server_unavailable"
        assert leader.leads
        assert they.cluster.holder == "a"


async def test_a_lease_that_says_it_no_longer_is_believed() -> None:
    async with family() as they:
        leader = await they.add_leader("a")
        annotations = {"slotkeeper.dev/start-blocker": NOT_FOUND.to_annotation()}
        they.cluster.edit(
            LEASES, *PLACE, lambda lease: lease["metadata"]["annotations"].update(annotations)
        )
        await until(lambda: leader.made.dispatcher.start_blocker)

        they.cluster.edit(
            LEASES,
            *PLACE,
            lambda lease: lease["metadata"]["annotations"].pop("slotkeeper.dev/start-blocker"),
        )

        await until(lambda: leader.made.dispatcher.start_blocker is None)
