"""Requests on which llama-server crashes: they must not end one replica after the other."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, echo
from raw_http import post
from slotkeeper.balancer.proxy.crash_guard import REMEMBERED_SECONDS, CrashRecord
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from wait_until import until

DEADLY = post("/completion", b'{"prompt": "x", "die": true}')
HARMLESS = post("/completion", b'{"prompt": "y"}')


def crashing(llama: FakeLlama, *, keep: bool = False) -> None:
    """Make a server end its process on a deadly request; with `keep`, others stay unanswered."""
    stopping: list[asyncio.Task[None]] = []

    async def script(call: Call) -> None:
        if b"die" in call.body:
            stopping.append(asyncio.ensure_future(llama.stop()))
            await call.disconnected.wait()
        elif keep:
            await call.disconnected.wait()
        else:
            await echo(call)

    llama.script = script


async def three_replicas(stack: AsyncExitStack, slots: int = 2) -> list[FakeLlama]:
    replicas = [await stack.enter_async_context(FakeLlama(slots)) for _ in range(3)]
    for replica in replicas:
        crashing(replica)
    return replicas


def calls(replicas: Sequence[FakeLlama], text: bytes = b"die") -> int:
    return sum(text in call.body for replica in replicas for call in replica.calls)


async def test_a_request_ends_one_replica_and_is_then_rejected() -> None:
    async with AsyncExitStack() as stack:
        replicas = await three_replicas(stack)
        balancer = await stack.enter_async_context(run_balancer(*replicas))
        first = await balancer.request(DEADLY)
        later = [await balancer.request(DEADLY) for _ in range(5)]

        assert (first.status, first.error_code) == (502, "replica_failed")
        assert {(each.status, each.error_code) for each in later} == {
            (422, "request_crashes_server")
        }
        assert calls(replicas) == 1
        assert (await balancer.request(HARMLESS)).status == 200
        await until(lambda: balancer.metric("replica_crashes_total") == 1)


async def test_a_request_sent_on_a_kept_connection_ends_one_replica() -> None:
    async with AsyncExitStack() as stack:
        replicas = await three_replicas(stack)
        balancer = await stack.enter_async_context(run_balancer(*replicas))
        for _ in replicas:
            await balancer.request(HARMLESS)
        first = await balancer.request(DEADLY)
        second = await balancer.request(DEADLY)

        assert (first.status, second.status) == (502, 422)
        assert calls(replicas) == 1


async def test_among_others_a_request_ends_two_replicas_at_most() -> None:
    async with AsyncExitStack() as stack:
        replicas = await three_replicas(stack)
        for replica in replicas:
            crashing(replica, keep=True)
        balancer = await stack.enter_async_context(run_balancer(*replicas))
        beside = [
            await balancer.start_request(post("/completion", b'{"prompt": "%d"}' % number))
            for number in range(3)
        ]
        statuses = [(await balancer.request(DEADLY)).status for _ in range(4)]

        assert statuses == [502, 502, 422, 422]
        assert calls(replicas) == 2
        assert len(beside) == 3


async def test_with_workers_a_request_that_ran_alone_is_sent_once_more() -> None:
    async with AsyncExitStack() as stack:
        replicas = await three_replicas(stack)
        balancer = await stack.enter_async_context(run_balancer(*replicas))
        balancer.proxy.crash_guard.has_workers = True
        await balancer.request(DEADLY)
        for replica in replicas:
            # A worker had been lost.
            replica.script = echo

        statuses = [(await balancer.request(DEADLY)).status for _ in range(3)]

        assert statuses == [200] * 3


async def test_with_workers_a_request_ends_two_replicas_at_most() -> None:
    async with AsyncExitStack() as stack:
        replicas = await three_replicas(stack)
        balancer = await stack.enter_async_context(run_balancer(*replicas))
        balancer.proxy.crash_guard.has_workers = True

        statuses = [(await balancer.request(DEADLY)).status for _ in range(4)]

        assert statuses == [502, 502, 422, 422]
        assert calls(replicas) == 2


async def test_a_queued_copy_is_not_sent_after_the_crash() -> None:
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(1))
        other = await stack.enter_async_context(FakeLlama(1))
        crashing(other)

        async def crash_later(call: Call) -> None:
            await call.proceed.wait()
            crashing(llama)
            await llama.script(call)

        llama.script = crash_later
        balancer = await stack.enter_async_context(run_balancer(llama))
        clients = [await balancer.start_request(DEADLY) for _ in range(3)]
        await llama.proceed(0)
        await until(lambda: not balancer.dispatcher.has_replica)
        balancer.proxy.set_replicas({llama.name: True, other.name: True})
        statuses = sorted([(await client.response()).status for client in clients])

        assert statuses == [422, 422, 502]
        assert calls([llama, other]) == 1


async def test_a_request_beside_a_crash_may_be_sent_again() -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(FakeLlama(2)) for _ in range(2)]
        for replica in replicas:
            crashing(replica, keep=True)
        balancer = await stack.enter_async_context(run_balancer(replicas[0]))
        innocent = await balancer.start_request(HARMLESS)
        await balancer.request(DEADLY)
        assert (await innocent.response()).status == 502

        crashing(replicas[1])
        balancer.proxy.set_replicas({each.name: True for each in replicas})
        assert [(await balancer.request(HARMLESS)).status for _ in range(3)] == [200] * 3


async def test_a_suspected_request_is_sent_one_at_a_time() -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(FakeLlama(2)) for _ in range(2)]
        for replica in replicas:
            crashing(replica, keep=True)
        balancer = await stack.enter_async_context(run_balancer(replicas[0]))
        innocent = await balancer.start_request(HARMLESS)
        await balancer.request(DEADLY)
        await innocent.response()
        balancer.proxy.set_replicas({each.name: True for each in replicas})
        await until(lambda: balancer.dispatcher.has_replica)
        await balancer.start_request(HARMLESS)
        second = await balancer.request(HARMLESS)

        assert (second.status, second.error_code) == (503, "suspected_request")
        assert second.headers["retry-after"] == "1"


async def test_a_crash_in_the_middle_of_a_response_is_remembered_too() -> None:
    async def crash_later(call: Call) -> None:
        await call.send_head()
        await call.send_event("half")
        await call.proceed.wait()
        stopping.append(asyncio.ensure_future(llama.stop()))

    stopping: list[asyncio.Task[None]] = []
    async with (
        FakeLlama(1, crash_later) as llama,
        FakeLlama(1) as other,
        run_balancer(llama) as balancer,
        await balancer.start_request(DEADLY) as client,
    ):
        await client.reader.readuntil(b"half")
        await llama.proceed(0)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.reader.readexactly(1000)
        balancer.proxy.set_replicas({llama.name: True, other.name: True})

        assert (await balancer.request(DEADLY)).status == 422
        assert not other.calls


async def test_a_replica_that_closes_a_connection_and_lives_is_no_crash() -> None:
    async def reset(call: Call) -> None:
        llama.script = echo
        call.reset()

    async with FakeLlama(1, reset) as llama, run_balancer(llama) as balancer:
        first = await balancer.request(HARMLESS)
        await until(lambda: balancer.dispatcher.has_replica)
        second = await balancer.request(HARMLESS)

        assert (first.status, second.status) == (502, 200)
        assert balancer.metric("replica_crashes_total") == 0


@pytest.mark.parametrize(("terminating", "status", "crashes"), [(False, 422, 1), (True, 200, 0)])
async def test_a_replica_that_has_restarted_already_crashed_unless_it_is_deleted(
    terminating: bool, status: int, crashes: int
) -> None:
    async def reset(call: Call) -> None:
        llama.script = echo
        call.reset()

    async with FakeLlama(1, reset) as llama, run_balancer(llama) as balancer:
        await balancer.start_request(HARMLESS)
        await llama.wait_calls(1)
        await until(lambda: not balancer.dispatcher.has_replica)
        balancer.proxy.set_replicas({llama.name: False}, {llama.name} if terminating else set())
        # It is decided whether the request is queued again or has crashed its replica.
        decision = "queued_requests" if terminating else "replica_crashes_total"
        await until(lambda: balancer.metric(decision) == 1)
        balancer.proxy.set_replicas({llama.name: True})

        assert (await balancer.request(HARMLESS)).status == status
        assert balancer.metric("replica_crashes_total") == crashes


@pytest.mark.parametrize("crashes", [[{1}], [{1, 2}, {1, 3}], [{1, 2}, {1}]])
def test_the_record_rejects_what_ran_alone_or_twice(crashes: list[set[int]]) -> None:
    record = CrashRecord()
    for running in crashes:
        record.add(running, now=0)

    assert record.count(1, now=REMEMBERED_SECONDS - 1) >= 2
    assert record.count(2, now=0) < 2
    assert record.count(1, now=REMEMBERED_SECONDS) == 0
    assert record.count(9, now=0) == 0


def test_the_record_is_bounded() -> None:
    record = CrashRecord()
    for number in range(5000):
        record.add({number}, now=0)

    assert len(record.crashes) == 1024
    assert record.count(4999, now=0) == 2


async def crash_when_told(call: Call) -> None:
    """Respond to nothing, as a replica that will end."""
    await call.proceed.wait()


async def test_others_are_not_blamed_for_a_request_whose_client_has_gone() -> None:
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(2, crash_when_told))
        balancer = await stack.enter_async_context(run_balancer(llama))
        innocent = await balancer.start_request(HARMLESS)
        deadly = await balancer.start_request(DEADLY)
        await until(lambda: len(llama.calls) == 2)
        await deadly.close()
        await until(lambda: len(balancer.proxy.active) == 1)
        await llama.stop()

        assert (await innocent.response()).status == 502
        other = await stack.enter_async_context(FakeLlama(2))
        balancer.proxy.set_replicas({llama.name: True, other.name: True})
        assert (await balancer.request(HARMLESS)).status == 200


async def test_a_request_whose_client_has_gone_is_remembered() -> None:
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(2, crash_when_told))
        balancer = await stack.enter_async_context(run_balancer(llama))
        deadly = await balancer.start_request(DEADLY)
        await until(lambda: len(llama.calls) == 1)
        await deadly.close()
        await until(lambda: not balancer.proxy.active)
        await llama.stop()
        await until(lambda: not balancer.dispatcher.has_replica)
        other = await stack.enter_async_context(FakeLlama(2))
        balancer.proxy.set_replicas({llama.name: True, other.name: True})

        assert (await balancer.request(DEADLY)).status == 422
        assert not other.calls


async def test_a_request_beside_those_of_the_previous_leader_is_not_blamed_for_certain() -> None:
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(2, crash_when_told))
        former = await stack.enter_async_context(run_balancer(llama))
        await former.start_request(DEADLY)
        await until(lambda: len(llama.calls) == 1)
        balancer = await stack.enter_async_context(run_balancer(llama))
        innocent = await balancer.start_request(HARMLESS)
        await until(lambda: len(llama.calls) == 2)
        await llama.stop()

        assert (await innocent.response()).status == 502
        other = await stack.enter_async_context(FakeLlama(2))
        balancer.proxy.set_replicas({llama.name: True, other.name: True})
        assert (await balancer.request(HARMLESS)).status == 200


async def test_a_full_queue_of_copies_is_rejected() -> None:
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(1, crash_when_told))
        balancer = await stack.enter_async_context(run_balancer(llama))
        first = await balancer.start_request(DEADLY)
        copies = [await balancer.start_request(DEADLY) for _ in range(400)]
        await llama.stop()
        assert (await first.response()).status == 502
        other = await stack.enter_async_context(FakeLlama(1))
        balancer.proxy.set_replicas({llama.name: True, other.name: True})

        assert {(await each.response()).status for each in copies} == {422}
        await balancer.wait_idle()
        assert (await balancer.request(HARMLESS)).status == 200


@pytest.mark.parametrize("connect_seconds", [0.0, 0.05])
async def test_a_request_of_a_replica_that_turns_out_to_be_deleted_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, connect_seconds: float
) -> None:
    """Its address may have gone, so that a connection is neither accepted nor refused."""

    async def accepts_connections(_: ReplicaSet, __: str) -> bool:
        await asyncio.sleep(connect_seconds)
        return False

    monkeypatch.setattr(ReplicaSet, "accepts_connections", accepts_connections)
    async with AsyncExitStack() as stack:
        llama = await stack.enter_async_context(FakeLlama(1, crash_when_told))
        balancer = await stack.enter_async_context(run_balancer(llama))
        client = await balancer.start_request(HARMLESS)
        await until(lambda: len(llama.calls) == 1)
        await llama.stop()
        await until(lambda: not balancer.dispatcher.has_replica)
        other = await stack.enter_async_context(FakeLlama(1))
        balancer.terminate(llama, other)

        assert (await client.response()).status == 200
