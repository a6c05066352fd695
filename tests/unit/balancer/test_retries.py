import asyncio
from dataclasses import replace

import pytest

from balancer_harness import FAST_TIMEOUTS, run_balancer
from fake_llama import Call, FakeLlama, echo, stream_two_events
from raw_http import post
from wait_until import until

RESET = "connection_reset"


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


@pytest.mark.parametrize("reported", ["before", "after"])
async def test_a_request_is_retried_if_its_replica_was_being_deleted(reported: str) -> None:
    async def end(call: Call) -> None:
        if reported == "before":
            balancer.terminate(first, second)
        call.reset()

    async with (
        FakeLlama(1, end) as first,
        FakeLlama(1) as second,
        run_balancer(first, timeouts=replace(FAST_TIMEOUTS, ending=5)) as balancer,
        await balancer.start_request(post("/completion", b"again")) as client,
    ):
        await first.wait_calls(1)
        await until(lambda: not first.busy)
        if reported == "after":
            await until(lambda: balancer.metric("replica_ejections_total", reason=RESET) == 1)
            balancer.terminate(first, second)
        response = await client.response()
        await balancer.wait_idle()

        assert response.status == 200
        assert [call.body for call in second.calls] == [b"again"]
        assert balancer.access_log()[0]["attempts"] == 2
        assert balancer.metric("request_retries_total") == 1
        assert (await balancer.request(post("/completion", b"again"))).status == 200
        assert balancer.metric("replica_crashes_total") == 0


async def test_a_retried_request_is_dispatched_before_later_ones() -> None:
    async def end_on_event(call: Call) -> None:
        await call.proceed.wait()
        balancer.terminate(first, second)
        call.reset()

    async with (
        FakeLlama(1, end_on_event) as first,
        FakeLlama(1) as second,
        run_balancer(first) as balancer,
    ):
        clients = [
            await balancer.start_request(post("/completion", name)) for name in (b"1", b"2", b"3")
        ]
        await first.proceed(0)
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()

        assert [call.body for call in second.calls] == [b"1", b"2", b"3"]


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
