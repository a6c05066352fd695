"""Preemptible requests through a balancer, in front of fake llama-servers."""

import json

import pytest

from balancer_harness import Balancer, run_balancer
from election_harness import run_group
from fake_llama import Call, FakeLlama, echo, never_respond, stream_two_events
from raw_http import RawClient, post
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.scheduling import QueueLimits, RunningLimits
from wait_until import until

PREEMPTIBLE = "X-Preemptible: true"


def batch(mark: str = "", *headers: str) -> bytes:
    """A preemptible request for a stream."""
    body = json.dumps({"stream": True, "prompt": mark}).encode()
    return post("/completion", body, PREEMPTIBLE, *headers)


def ordinary(body: bytes = b"{}", *headers: str) -> bytes:
    return post("/completion", body, *headers)


async def by_header(call: Call) -> None:
    """Respond to the bodies that contain "quick", and to no others."""
    await (echo if b"quick" in call.body else never_respond)(call)


async def send(balancer: Balancer, request: bytes) -> RawClient:
    """Send a request that preempts another one."""
    client = await balancer.connect()
    await client.send(request)
    return client


def outcomes(balancer: Balancer) -> list[tuple[str, str | None, bool]]:
    return [(line["outcome"], line["code"], line["preemptible"]) for line in balancer.access_log()]


async def test_a_running_request_gets_503_and_its_slot_goes_to_the_ordinary_one() -> None:
    async with FakeLlama(1, by_header) as llama, run_balancer(llama) as balancer:
        preempted = await balancer.start_request(batch())
        await llama.wait_calls(1)
        response = await balancer.request(ordinary(b'{"quick": 1}'))

        assert response.status == 200
        error = await preempted.response()
        assert (error.status, json.loads(error.body)["error"]["code"]) == (503, "preempted")
        assert error.headers["retry-after"] == "1"
        assert llama.calls[0].disconnected.is_set()
        assert (llama.overcommitted, llama.max_busy) == (0, 1)
        assert outcomes(balancer) == [
            ("preempted", "preempted", True),
            ("completed", None, False),
        ]
        assert balancer.metric("preempted_requests_total", reason="slot") == 1
        assert balancer.metric("requests_total", outcome="preempted", code="503") == 1
        assert balancer.metric("replica_ejections_total", reason="connection_reset") == 0
        assert balancer.metric("request_retries_total") == 0


async def test_llama_server_does_not_see_the_header() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        await balancer.request(batch())
        assert "x-preemptible" not in llama.calls[0].headers


async def test_the_ordinary_request_waits_until_llama_server_has_released_the_slot() -> None:
    async with FakeLlama(2, by_header) as llama, run_balancer(llama) as balancer:
        llama.frees_slots.clear()
        first = await balancer.start_request(batch("1"))
        await llama.wait_calls(1)
        second = await balancer.start_request(batch("2"))
        await llama.wait_calls(2)
        waiting = await send(balancer, ordinary(b'{"quick": 1}'))
        assert (await second.response()).status == 503, "it was dispatched last"
        polls = llama.slots_polls
        await until(lambda: llama.slots_polls > polls + 3)
        assert (balancer.dispatcher.busy_slots, balancer.dispatcher.queued) == (2, 1)

        llama.frees_slots.set()
        assert (await waiting.response()).status == 200
        assert llama.overcommitted == 0
        assert first.reader.at_eof() is False
        assert balancer.metric("preempted_requests_total", reason="slot") == 1


async def test_a_stream_that_has_begun_is_closed() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        stream = await balancer.start_request(batch())
        await stream.reader.readuntil(b"data: first\n\n\r\n")
        waiting = await send(balancer, ordinary())
        await llama.wait_calls(2)
        assert await stream.reader.read() == b"", "without the last chunk"
        await llama.proceed(1)
        assert (await waiting.response()).status == 200
        assert outcomes(balancer)[0] == ("preempted", "preempted", True)


async def test_a_stream_that_was_kept_alive_while_queued_ends_with_an_event() -> None:
    request = post("/v1/completions", b'{"stream": true}', PREEMPTIBLE)
    async with (
        FakeLlama(1, by_header) as llama,
        run_balancer(llama, heartbeat_seconds=0.01) as balancer,
    ):
        running = await balancer.start_request(ordinary())
        await llama.wait_calls(1)
        stream = await balancer.start_request(request)
        await stream.reader.readuntil(b": queued")
        running.reset()
        await llama.wait_calls(2)
        await balancer.request(ordinary(b'{"quick": 1}'))
        rest = await stream.reader.readuntil(b"0\r\n\r\n")
        assert b'"code":"preempted"' in rest


async def test_a_preemptible_request_is_queued_behind_all_others() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        async with await balancer.start_request(ordinary(b"1")) as first:
            later = [
                await balancer.start_request(batch("3")),
                await balancer.start_request(ordinary(b"2")),
            ]
            page = await balancer.admin_json("/debug/queue")
            assert [(each["priority"], each["preemptible"]) for each in page["next"]] == [
                (0, False),
                (None, True),
            ]
            for number in range(3):
                await llama.proceed(number)
            for client in (first, *later):
                await client.response()
        assert [call.body[-3:] for call in llama.calls] == [b"1", b"2", b'3"}']


async def test_an_ordinary_request_takes_the_place_of_one_in_a_full_queue() -> None:
    limits = QueueLimits(max_queued=1)
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=limits) as balancer,
    ):
        await balancer.start_request(ordinary())
        displaced = await balancer.start_request(batch())
        rejected = await balancer.request(batch())
        assert rejected.status == 429
        await send(balancer, ordinary())
        assert (await displaced.response()).status == 503
        assert balancer.dispatcher.queued == 1
        assert balancer.metric("preempted_requests_total", reason="queue") == 1
        assert (await balancer.request(ordinary())).status == 429


async def test_a_replica_that_is_deleted_aborts_preemptible_requests_only() -> None:
    async with (
        FakeLlama(2, stream_two_events) as llama,
        FakeLlama(1) as other,
        run_balancer(llama) as balancer,
    ):
        stays = await balancer.start_request(ordinary())
        ends = await balancer.start_request(batch())
        await ends.reader.readuntil(b"data: first\n\n\r\n")
        balancer.terminate(llama, other)
        await llama.calls[1].disconnected.wait()
        await llama.proceed(0)
        assert (await stays.response()).status == 200
        assert await ends.reader.read() == b""
        assert balancer.metric("preempted_requests_total", reason="replica") == 1


async def test_a_replica_that_is_not_ready_for_a_moment_keeps_its_requests() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        client = await balancer.start_request(batch())
        await llama.wait_calls(1)
        balancer.proxy.set_replicas({llama.name: False})
        await llama.proceed(0)
        assert (await client.response()).status == 200


async def test_a_request_for_several_slots_preempts_as_many() -> None:
    body = b'{"prompt": "quick", "n": 2}'
    async with FakeLlama(3, by_header) as llama, run_balancer(llama) as balancer:
        llama.tasks = lambda call: 2 if b'"n"' in call.body else 1
        clients = []
        for number in range(3):
            clients.append(await balancer.start_request(batch(str(number))))
            await llama.wait_calls(number + 1)
        assert (await balancer.request(post("/v1/completions", body))).status == 200
        statuses = [(await each.response()).status for each in clients[1:]]
        assert statuses == [503, 503]
        assert (llama.overcommitted, llama.max_busy) == (0, 3)


@pytest.mark.parametrize("body", [b'{"stream": false}', b'{"n": 1}', b"x" * 100_000])
async def test_a_request_that_is_no_stream_keeps_its_slot_since_llama_server_would_not_release_it(
    body: bytes,
) -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        client = await balancer.start_request(post("/completion", body, PREEMPTIBLE))
        await llama.wait_calls(1)
        waiting = await balancer.start_request(ordinary())
        for number, each in enumerate((client, waiting)):
            await llama.proceed(number)
            assert (await each.response()).status == 200
        assert balancer.metric("preempted_requests_total", reason="slot") == 0


async def test_a_large_request_for_a_stream_is_preempted() -> None:
    async with FakeLlama(1, by_header) as llama, run_balancer(llama) as balancer:
        preempted = await balancer.start_request(batch("x" * 100_000))
        await llama.wait_calls(1)
        assert (await balancer.request(ordinary(b"quick"))).status == 200
        assert (await preempted.response()).status == 503


async def test_a_preempted_request_does_not_count_as_crashing() -> None:
    async with FakeLlama(1, by_header) as llama, run_balancer(llama) as balancer:
        for number in range(3):
            preempted = await balancer.start_request(batch("same"))
            await llama.wait_calls(2 * number + 1)
            assert (await balancer.request(ordinary(b"quick"))).status == 200
            assert (await preempted.response()).status == 503
        assert balancer.metric("replica_crashes_total") == 0
        assert len(llama.calls) == 6


async def test_a_key_at_its_limit_preempts_its_own_request() -> None:
    keys = ApiKeys(b"salt")
    keys.replace({"ann": b"secret"})
    header = "Authorization: Bearer secret"
    async with (
        FakeLlama(2, by_header) as llama,
        run_balancer(llama, keys=keys, running_limits=RunningLimits(1)) as balancer,
    ):
        preempted = await balancer.start_request(batch("", header))
        await llama.wait_calls(1)
        assert (await balancer.request(ordinary(b"quick", header))).status == 200
        assert (await preempted.response()).status == 503


@pytest.mark.parametrize(
    ("value", "preemptible"), [("true", True), ("True", True), ("false", False)]
)
async def test_the_header_is_true_or_false(value: str, preemptible: bool) -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        request = post("/completion", b"{}", f"X-Preemptible: {value}")
        assert (await balancer.request(request)).status == 200
        assert outcomes(balancer) == [("completed", None, preemptible)]


@pytest.mark.parametrize("value", ["1", "yes", ""])
async def test_another_value_of_the_header_is_rejected(value: str) -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion", b"{}", f"X-Preemptible: {value}"))
        assert (response.status, response.error_code) == (400, "invalid_preemptible")


async def test_the_report_counts_preemptible_requests_apart() -> None:
    async with FakeLlama(2, by_header) as llama, run_balancer(llama) as balancer:
        await balancer.start_request(batch())
        await llama.wait_calls(1)
        await balancer.start_request(ordinary())
        await llama.wait_calls(2)
        await balancer.start_request(batch())
        report = await balancer.admin_json("/autoscaling")
        assert (report["slots"], report["queued"]) == ({"total": 2, "busy": 1}, 0)
        assert (report["demand"], report["peakDemand"]) == (1, 1)
        assert (report["preemptible"], report["busyByReplica"]) == (2, {llama.name: 1})
        assert balancer.metric("slots_busy", replica=llama.name) == 2
        assert balancer.metric("preemptible_slots_busy") == 1
        assert balancer.metric("preemptible_queued_requests") == 1


async def test_a_queued_request_ends_a_long_poll_at_zero_replicas() -> None:
    async with run_balancer() as balancer:
        async with await RawClient.connect(balancer.metrics_port) as client:
            await client.send(b"GET /autoscaling?timeout=20 HTTP/1.1\r\nHost: a\r\n\r\n")
            await balancer.start_request(batch())
            report = json.loads((await client.response()).body)
        assert (report["demand"], report["preemptible"]) == (0, 1)


async def test_a_standby_relays_the_header_and_the_leader_preempts_what_it_relayed() -> None:
    async with FakeLlama(1, by_header) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        standby = await group.add_standby("b")
        relayed = await standby.balancer.start_request(batch())
        await llama.wait_calls(1)
        response = await standby.balancer.request(ordinary(b"quick"))

        assert response.status == 200
        error = await relayed.response()
        assert (error.status, error.error_code) == (503, "preempted")
        assert leader.balancer.metric("preempted_requests_total", reason="slot") == 1
        assert standby.balancer.metric("preempted_requests_total", reason="slot") == 0
        assert llama.overcommitted == 0


async def test_a_leader_that_becomes_a_standby_aborts_its_preemptible_requests() -> None:
    async with FakeLlama(2, stream_two_events) as llama, run_group(llama) as group:
        leader = await group.add_leader("a")
        next_leader = await group.add_standby("b")
        stays = await leader.balancer.start_request(ordinary())
        await llama.wait_calls(1)
        ends = await leader.balancer.start_request(batch())
        await ends.reader.readuntil(b"data: first\n\n\r\n")
        leader.election.shut_down()
        await llama.calls[1].disconnected.wait()
        assert leader.balancer.metric("preempted_requests_total", reason="leader") == 1
        assert await ends.reader.read() == b""
        await until(lambda: next_leader.is_leader)
        await llama.proceed(0)
        assert (await stays.response()).status == 200
        assert llama.overcommitted == 0
