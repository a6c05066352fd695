import asyncio

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, echo, stream_two_events
from raw_http import post


async def test_a_failed_connection_is_retried_at_another_replica() -> None:
    async with (
        FakeLlama(1) as first,
        FakeLlama(1) as second,
        run_balancer(first, second) as balancer,
    ):
        await first.stop()
        responses = [await balancer.request(post("/completion")) for _ in range(3)]

        assert [response.status for response in responses] == [200] * 3
        assert len(second.calls) == 3
        assert balancer.metric("request_retries_total") == 1
        assert balancer.metric("replica_ejections_total", reason="connection_refused") == 1


async def test_a_request_is_retried_if_its_replica_dies_before_the_response() -> None:
    async def crash_once(call: Call) -> None:
        first.script = echo
        call.reset()

    async with FakeLlama(1, crash_once) as first, run_balancer(first) as balancer:
        response = await balancer.request(post("/completion", b"again"))
        await balancer.wait_idle()

        assert response.status == 200
        assert [call.body for call in first.calls] == [b"again", b"again"]
        assert balancer.access_log()[0]["attempts"] == 2


async def test_a_request_that_crashes_every_replica_fails_after_three_attempts() -> None:
    async def crash(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, crash) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (502, "replica_failed")
        assert len(llama.calls) == 3
        await balancer.wait_idle()


async def test_a_retried_request_is_dispatched_before_later_ones() -> None:
    crash = asyncio.Event()

    async def crash_on_event(call: Call) -> None:
        await crash.wait()
        llama.script = echo
        call.reset()

    async with FakeLlama(1, crash_on_event) as llama, run_balancer(llama) as balancer:
        clients = [
            await balancer.start_request(post("/completion", name)) for name in (b"1", b"2", b"3")
        ]
        crash.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()

        assert [call.body for call in llama.calls] == [b"1", b"1", b"2", b"3"]


async def test_a_stale_connection_does_not_eject_a_replica() -> None:
    async def close_connection(call: Call) -> None:
        llama.script = echo
        call.reset()

    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/completion"))
        llama.script = close_connection
        response = await balancer.request(post("/completion"))

        assert response.status == 200
        assert balancer.metric("replica_ejections_total", reason="connection_reset") == 0


async def test_a_response_broken_off_is_aborted_and_not_retried() -> None:
    async def break_off(call: Call) -> None:
        await call.send_head()
        await call.send_event("half")
        await call.proceed.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as bad,
        FakeLlama(1, stream_two_events) as good,
        run_balancer(bad, good) as balancer,
    ):
        clients = [await balancer.start_request(post("/completion")) for _ in range(2)]
        await bad.wait_calls(1)
        await good.wait_calls(1)
        await bad.proceed(0)
        await good.proceed(0)
        results = await asyncio.gather(
            *(client.response() for client in clients), return_exceptions=True
        )

        assert sorted(type(result).__name__ for result in results) == [
            "IncompleteReadError",
            "Response",
        ]
        await balancer.wait_idle()
        assert len(bad.calls) == len(good.calls) == 1
        assert {line["outcome"] for line in balancer.access_log()} == {"aborted", "completed"}


async def test_a_response_without_a_length_broken_off_ends_with_a_reset() -> None:
    async def break_off(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await call.proceed.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as llama,
        run_balancer(llama) as balancer,
        await balancer.start_request(post("/completion")) as client,
    ):
        await client.reader.readuntil(b"half")
        await llama.proceed(0)
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_a_response_that_is_not_http_is_502() -> None:
    async def send_banner(call: Call) -> None:
        await call.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with FakeLlama(1, send_banner) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion"))

        assert (response.status, response.error_code) == (502, "replica_failed")
        await balancer.wait_idle()
