import asyncio

import pytest

from balancer_harness import balancer
from fake_llama import Call, FakeLlama, answer_at_once, when_told
from raw_http import post


async def test_a_failed_connection_is_tried_elsewhere() -> None:
    async with FakeLlama(1) as first, FakeLlama(1) as second, balancer(first, second) as made:
        await first.stop()
        answers = [await made.ask(post("/completion")) for _ in range(3)]

        assert [each.status for each in answers] == [200] * 3
        assert len(second.calls) == 3
        assert made.metric("request_retries_total") == 1
        assert made.metric("replica_ejections_total", reason="connection_refused") == 1


async def test_a_replica_that_dies_before_its_answer_costs_nobody_anything() -> None:
    async def die_once(call: Call) -> None:
        first.script = answer_at_once
        call.reset()

    async with FakeLlama(1, die_once) as first, balancer(first) as made:
        response = await made.ask(post("/completion", b"again"))
        await made.at_rest()

        assert response.status == 200
        assert [call.body for call in first.calls] == [b"again", b"again"]
        assert made.lines()[0]["attempts"] == 2


async def test_a_request_that_kills_every_replica_is_given_up() -> None:
    async def die(call: Call) -> None:
        call.reset()

    async with FakeLlama(1, die) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (502, "replica_failed")
        assert len(llama.calls) == 3
        await made.at_rest()


async def test_a_retried_request_goes_before_those_that_came_later() -> None:
    told = asyncio.Event()

    async def die_when_told(call: Call) -> None:
        await told.wait()
        llama.script = answer_at_once
        call.reset()

    async with FakeLlama(1, die_when_told) as llama, balancer(llama) as made:
        clients = [await made.start(post("/completion", name)) for name in (b"1", b"2", b"3")]
        told.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()

        assert [call.body for call in llama.calls] == [b"1", b"1", b"2", b"3"]


async def test_a_stale_connection_is_no_reason_to_set_a_replica_aside() -> None:
    async def hang_up(call: Call) -> None:
        llama.script = answer_at_once
        call.reset()

    async with FakeLlama(1) as llama, balancer(llama) as made:
        await made.ask(post("/completion"))
        llama.script = hang_up
        response = await made.ask(post("/completion"))

        assert response.status == 200
        assert made.metric("replica_ejections_total", reason="connection_reset") == 0


async def test_an_answer_that_breaks_off_is_cut_and_not_tried_again() -> None:
    async def break_off(call: Call) -> None:
        await call.head()
        await call.event("half")
        await call.go.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as bad,
        FakeLlama(1, when_told) as good,
        balancer(bad, good) as made,
    ):
        clients = [await made.start(post("/completion")) for _ in range(2)]
        await bad.called(1)
        await good.called(1)
        bad.calls[0].go.set()
        good.calls[0].go.set()
        ends = await asyncio.gather(
            *(client.response() for client in clients), return_exceptions=True
        )

        assert sorted(type(end).__name__ for end in ends) == ["IncompleteReadError", "Response"]
        await made.at_rest()
        assert len(bad.calls) == len(good.calls) == 1
        assert {line["outcome"] for line in made.lines()} == {"aborted", "completed"}


async def test_a_broken_off_answer_without_a_length_ends_in_a_reset() -> None:
    async def break_off(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await call.go.wait()
        call.reset()

    async with (
        FakeLlama(1, break_off) as llama,
        balancer(llama) as made,
        await made.start(post("/completion")) as client,
    ):
        await client.reader.readuntil(b"half")
        llama.calls[0].go.set()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_an_answer_that_is_no_http_is_a_502() -> None:
    async def garble(call: Call) -> None:
        await call.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with FakeLlama(1, garble) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion"))

        assert (response.status, response.error_code) == (502, "replica_failed")
        await made.at_rest()
