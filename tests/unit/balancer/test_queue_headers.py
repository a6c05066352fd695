import json
from typing import Any

from balancer_harness import Balancer, balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.scheduling import QueueLimits
from wait_until import until

POSITION, WAIT = "x-slotkeeper-queue-position", "x-slotkeeper-wait-seconds"


async def queue(made: Balancer) -> Any:
    async with await RawClient.connect(made.metrics_port) as client:
        return json.loads((await client.ask(get("/debug/queue"))).body)


async def test_an_answer_says_where_its_request_stood_and_how_long_it_waited() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        clients = [await made.start(post("/completion")) for _ in range(3)]
        told = []
        for number, client in enumerate(clients):
            (await llama.called(number + 1))[number].go.set()
            told.append((await client.response()).headers)
        lines = made.lines()

    assert [headers[POSITION] for headers in told] == ["0", "1", "2"]
    assert told[0][WAIT] == "0.000"
    assert [headers[WAIT] for headers in told] == [f"{line['queue_seconds']:.3f}" for line in lines]


async def test_what_a_replica_says_of_waiting_is_not_passed_on() -> None:
    async def pretend(call: Call) -> None:
        await call.write(
            b"HTTP/1.1 200 OK\r\nX-SLOTKEEPER-wait-seconds: 99\r\nContent-Length: 0\r\n\r\n"
        )

    async with FakeLlama(1, pretend) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

    assert response.raw.lower().count(b"wait-seconds") == 1
    assert response.headers[WAIT] == "0.000"


async def test_who_finds_no_place_is_told_that_it_did_not_wait() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=QueueLimits(max_queued=0)) as made,
        await made.start(post("/completion")),
    ):
        response = await made.ask(post("/completion"))

    assert response.status == 429
    assert POSITION not in response.headers
    assert response.headers[WAIT] == "0.000"


async def test_who_waited_in_vain_is_told_where_and_how_long() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, bounds=QueueLimits(queue_timeout=0.02)) as made,
        await made.start(post("/completion")),
        await made.start(post("/completion")) as second,
        await made.start(post("/completion")) as third,
    ):
        told = [await client.response() for client in (second, third)]
        lines = made.lines()

    assert [response.status for response in told] == [503, 503]
    assert [response.headers[POSITION] for response in told] == ["1", "2"]
    waits = [float(response.headers[WAIT]) for response in told]
    assert all(wait >= 0.02 for wait in waits)
    assert all(map(_same, waits, [line["queue_seconds"] for line in lines]))


async def test_who_is_given_up_is_told_how_long_it_waited_for_its_last_try() -> None:
    async def die(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, die) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))
        (line,) = made.lines()

    assert (response.status, response.headers[POSITION]) == (502, "0")
    # Between two tries the replica was looked at and found well.
    assert line["queue_seconds"] > 0
    assert _same(float(response.headers[WAIT]), line["queue_seconds"])


async def test_who_waits_again_after_a_try_is_told_of_all_its_wait() -> None:
    async def die(call: Call) -> None:
        llama.loading = True
        call.reset()

    bounds = QueueLimits(cold_start_timeout=0.05)
    async with FakeLlama(1, die) as llama, balancer(llama, bounds=bounds) as made:
        response = await made.ask(post("/completion"))

    assert response.status == 503
    assert float(response.headers[WAIT]) >= 0.05


async def test_people_see_who_waits_for_what() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, max_priority=2) as made,
        await made.start(post("/completion", b"running")),
        await made.start(post("/completion", b"secret", "Authorization: Bearer hidden")),
        await made.start(post("/completion", b"more", "Authorization: Bearer hidden")),
        await made.start(post("/completion", b"urgent!", "X-Priority: 2")),
    ):
        seen = await queue(made)

    text = json.dumps(seen)
    assert "secret" not in text
    assert "hidden" not in text
    assert seen["queued"] == 3
    assert seen["queuedBytes"] == len("secret" + "more" + "urgent!")
    urgent, keyed = seen["byPriorityAndKey"]
    assert (urgent["priority"], urgent["key"], urgent["queued"]) == (2, None, 1)
    assert (keyed["priority"], len(keyed["key"]), keyed["queued"]) == (0, 12, 2)
    assert (
        seen["oldestQueuedSeconds"] == keyed["oldestQueuedSeconds"] >= urgent["oldestQueuedSeconds"]
    )
    assert [(each["position"], each["bytes"]) for each in seen["next"]] == [(1, 7), (2, 6), (3, 4)]
    assert seen["replicas"] == [
        {
            "name": llama.name,
            "ready": True,
            "slots": 1,
            "busy": 1,
            "releasing": 0,
            "affinityQueue": 0,
            "cachedPrefixes": 0,
        }
    ]


async def test_people_see_warm_lines_and_slots_that_are_being_let_go_of() -> None:
    prompt = json.dumps({"prompt": "x" * 2000}).encode()
    async with (
        FakeLlama(1, when_told) as first,
        FakeLlama(1, when_told) as second,
        balancer(first, second) as made,
    ):
        first.lets_go.clear()
        second.lets_go.clear()
        running = await made.start(post("/completion", prompt))
        async with await made.start(post("/completion", prompt)):
            running.reset()
            await until(lambda: len(made.proxy.active) == 1)
            seen = await queue(made)
            (warm,) = (each for each in seen["replicas"] if each["busy"])
            (waiting,) = seen["next"]
            assert waiting["affinityReplica"] == warm["name"]
            assert (warm["affinityQueue"], warm["cachedPrefixes"], warm["releasing"]) == (1, 1, 1)
        first.lets_go.set()
        second.lets_go.set()
        await made.at_rest()


async def test_of_a_long_queue_only_the_first_are_listed() -> None:
    async with balancer() as made:
        for _ in range(120):
            made.dispatcher.enqueue(None, 1, made.proxy.now())
        seen = await queue(made)
        for ticket in list(made.dispatcher.queue):
            made.dispatcher.cancel(ticket)

    assert (seen["queued"], len(seen["next"])) == (120, 100)


def _same(told: float, logged: float) -> bool:
    # Each is rounded to a millisecond, so that they differ by one, and in floats by a hair more.
    return abs(round(1000 * (logged - told))) <= 1
