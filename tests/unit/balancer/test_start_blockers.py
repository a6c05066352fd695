"""If no replica can start, queued requests soon get an error response with the reason."""

import json

from balancer_harness import run_balancer
from fake_llama import FakeLlama, echo
from queued_stream import COMMENT
from raw_http import post
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.scheduling import QueueLimits

NOT_FOUND = StartBlocker("ModelNotFound", "GET http://models/a.gguf returned 404", permanent=True)
NO_GPU = StartBlocker("Unschedulable", "waiting for 1 nvidia.com/gpu", permanent=False)
PROMPT = {"prompt": "hello"}
BLOCKED_BRIEFLY = QueueLimits(cold_start_timeout=600, blocked_timeout=0.02)
BLOCKED_LONG = QueueLimits(cold_start_timeout=600, blocked_timeout=600)


async def test_a_queued_request_gets_the_reason_and_a_retry_time() -> None:
    async with (
        run_balancer(queue_limits=BLOCKED_BRIEFLY) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        balancer.proxy.set_blocked(NOT_FOUND)

        response = await client.response()

        error = json.loads(response.body)["error"]
        assert (response.status, error["code"]) == (503, "server_unavailable")
        assert error["message"] == f"no replica can start: {NOT_FOUND.message}"
        assert response.headers["retry-after"] == "30"
        assert balancer.metric("start_blocked", reason="ModelNotFound") == 1


async def test_the_queue_page_shows_the_start_blocker() -> None:
    async with run_balancer() as balancer:
        balancer.proxy.set_blocked(NO_GPU)

        page = await balancer.admin_json("/debug/queue")

    assert page["startBlocker"] == {
        "reason": NO_GPU.reason,
        "message": NO_GPU.message,
        "permanent": False,
    }


async def test_a_later_request_gets_the_reason_too_and_counts_as_demand() -> None:
    async with run_balancer(queue_limits=QueueLimits(blocked_timeout=0)) as balancer:
        balancer.proxy.set_blocked(NOT_FOUND)

        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (503, "server_unavailable")
        assert (await balancer.admin_json("/autoscaling"))["peakDemand"] == 1


async def test_a_temporary_blocker_is_named_after_the_cold_start_timeout() -> None:
    async with (
        run_balancer(
            queue_limits=QueueLimits(cold_start_timeout=0.05, blocked_timeout=0)
        ) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        balancer.proxy.set_blocked(NO_GPU)

        response = await client.response()

        error = json.loads(response.body)["error"]
        assert (response.status, error["code"]) == (503, "cold_start_timeout")
        assert error["message"].endswith(f"within the cold start timeout: {NO_GPU.message}")


async def test_a_request_is_served_if_the_blocker_is_removed_in_time() -> None:
    async with (
        FakeLlama(1, echo) as llama,
        run_balancer(queue_limits=BLOCKED_LONG) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        balancer.proxy.set_blocked(NOT_FOUND)
        balancer.proxy.set_blocked(None)
        balancer.proxy.set_replicas({llama.name: True})

        assert (await client.response()).status == 200


async def test_a_blocker_is_ignored_while_a_replica_is_ready() -> None:
    async with (
        FakeLlama(1, echo) as llama,
        run_balancer(llama, queue_limits=BLOCKED_BRIEFLY) as balancer,
    ):
        balancer.proxy.set_blocked(NOT_FOUND)

        assert (await balancer.request(post("/completion"))).status == 200
        assert balancer.dispatcher.start_blocker is None
        assert balancer.metric("start_blocked", reason="ModelNotFound") == 0


async def test_a_stream_that_has_begun_gets_the_reason_as_an_event() -> None:
    body = json.dumps({**PROMPT, "stream": True}).encode()
    async with (
        run_balancer(queue_limits=BLOCKED_LONG, heartbeat_seconds=0.005) as balancer,
        await balancer.start_request(post("/v1/chat/completions", body)) as client,
    ):
        await client.reader.readuntil(COMMENT % 1)
        balancer.dispatcher.limits = BLOCKED_BRIEFLY
        balancer.proxy.set_blocked(NOT_FOUND)

        received = await client.reader.readuntil(b"}}")

        assert NOT_FOUND.message.encode() in received
