import json

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import post
from wait_until import until


async def test_the_queue_page_lists_queued_requests_without_prompts_or_secrets() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, max_priority=2) as balancer,
        await balancer.start_request(post("/completion", b"running")),
        await balancer.start_request(
            post("/completion", b"secret", "Authorization: Bearer hidden")
        ),
        await balancer.start_request(post("/completion", b"more", "Authorization: Bearer hidden")),
        await balancer.start_request(post("/completion", b"urgent!", "X-Priority: 2")),
    ):
        page = await balancer.admin_json("/debug/queue")

    text = json.dumps(page)
    assert "secret" not in text
    assert "hidden" not in text
    assert page["queued"] == 3
    assert page["queuedBytes"] == len("secret" + "more" + "urgent!")
    urgent, keyed = page["byPriorityAndKey"]
    assert (urgent["priority"], urgent["key"], urgent["queued"]) == (2, None, 1)
    assert (keyed["priority"], len(keyed["key"]), keyed["queued"]) == (0, 12, 2)
    assert (
        page["oldestQueuedSeconds"] == keyed["oldestQueuedSeconds"] >= urgent["oldestQueuedSeconds"]
    )
    assert [(each["position"], each["bytes"]) for each in page["next"]] == [(1, 7), (2, 6), (3, 4)]
    assert page["replicas"] == [
        {
            "name": llama.name,
            "ready": True,
            "slots": 1,
            "busy": 1,
            "preemptible": 0,
            "releasing": 0,
            "affinityQueue": 0,
            "cachedPrefixes": 0,
        }
    ]


async def test_the_queue_page_shows_affinity_queues_and_slots_being_released() -> None:
    prompt = json.dumps({"prompt": "x" * 2000}).encode()
    async with (
        FakeLlama(1, stream_two_events) as first,
        FakeLlama(1, stream_two_events) as second,
        run_balancer(first, second) as balancer,
    ):
        first.frees_slots.clear()
        second.frees_slots.clear()
        running = await balancer.start_request(post("/completion", prompt))
        async with await balancer.start_request(post("/completion", prompt)):
            running.reset()
            await until(lambda: len(balancer.proxy.active) == 1)
            page = await balancer.admin_json("/debug/queue")
            (replica,) = (each for each in page["replicas"] if each["busy"])
            (queued,) = page["next"]
            assert queued["affinityReplica"] == replica["name"]
            counts = (replica["affinityQueue"], replica["cachedPrefixes"], replica["releasing"])
            assert counts == (1, 1, 1)
        first.frees_slots.set()
        second.frees_slots.set()
        await balancer.wait_idle()


async def test_the_queue_page_lists_only_the_first_of_a_long_queue() -> None:
    async with run_balancer() as balancer:
        for _ in range(120):
            balancer.dispatcher.enqueue(None, 1, balancer.proxy.now())
        page = await balancer.admin_json("/debug/queue")
        for queued in list(balancer.dispatcher.queue):
            balancer.dispatcher.cancel(queued)

    assert (page["queued"], len(page["next"])) == (120, 100)
