from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import post
from slotkeeper.scheduling import QueueLimits
from stepped_loop import SteppedLoop

POSITION, WAIT = "x-slotkeeper-queue-position", "x-slotkeeper-wait-seconds"


async def test_a_response_has_the_queue_position_and_the_queue_time() -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        clients = [await balancer.start_request(post("/completion")) for _ in range(3)]
        received = []
        for number, client in enumerate(clients):
            await llama.proceed(number)
            received.append((await client.response()).headers)
        lines = balancer.access_log()

    assert [headers[POSITION] for headers in received] == ["0", "1", "2"]
    assert received[0][WAIT] == "0.000"
    assert [headers[WAIT] for headers in received] == [
        f"{line['queue_seconds']:.3f}" for line in lines
    ]


async def test_a_replicas_own_queue_headers_are_replaced() -> None:
    async def respond_with_header(call: Call) -> None:
        await call.write(
            b"HTTP/1.1 200 OK\r\nX-SLOTKEEPER-wait-seconds: 99\r\nContent-Length: 0\r\n\r\n"
        )

    async with FakeLlama(1, respond_with_header) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion"))

    assert response.raw.lower().count(b"wait-seconds") == 1
    assert response.headers[WAIT] == "0.000"


async def test_a_request_rejected_by_a_full_queue_has_queue_time_zero() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, queue_limits=QueueLimits(max_queued=0)) as balancer,
        await balancer.start_request(post("/completion")),
    ):
        response = await balancer.request(post("/completion"))

    assert response.status == 429
    assert POSITION not in response.headers
    assert response.headers[WAIT] == "0.000"


async def test_a_request_that_timed_out_has_its_position_and_queue_time(
    clock: SteppedLoop,
) -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(
            llama, queue_limits=QueueLimits(queue_timeout=60), test_seconds=1000
        ) as balancer,
        await balancer.start_request(post("/completion")),
        await balancer.start_request(post("/completion")) as second,
        await balancer.start_request(post("/completion")) as third,
    ):
        await clock.advance(70, step=5)
        responses = [await client.response() for client in (second, third)]
        lines = balancer.access_log()

    assert [response.status for response in responses] == [503, 503]
    assert [response.headers[POSITION] for response in responses] == ["1", "2"]
    waits = [float(response.headers[WAIT]) for response in responses]
    assert all(60 <= wait < 80 for wait in waits)
    assert all(map(_same_milliseconds, waits, [line["queue_seconds"] for line in lines]))


async def test_a_failed_request_has_the_queue_time_until_its_last_attempt() -> None:
    async def crash(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, crash) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion"))
        (line,) = balancer.access_log()

    assert (response.status, response.headers[POSITION]) == (502, "0")
    assert _same_milliseconds(float(response.headers[WAIT]), line["queue_seconds"])


async def test_a_requeued_request_has_its_total_queue_time() -> None:
    async def end(call: Call) -> None:
        balancer.terminate(llama)
        call.reset()

    limits = QueueLimits(cold_start_timeout=0.05)
    async with FakeLlama(1, end) as llama, run_balancer(llama, queue_limits=limits) as balancer:
        response = await balancer.request(post("/completion"))

    assert response.status == 503
    assert float(response.headers[WAIT]) >= 0.05


def _same_milliseconds(received: float, logged: float) -> bool:
    # Each is rounded to a millisecond, so that group differ by one, and in floats by a hair more.
    return abs(round(1000 * (logged - received))) <= 1
