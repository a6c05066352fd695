import asyncio

import pytest
from typing_extensions import override

from balancer_harness import QUICK, balancer
from fake_llama import Call, FakeLlama, when_told
from raw_http import post
from slotkeeper.balancer.upstream.replicas import ReplicaTimeouts
from wait_until import until


async def test_a_replica_joins_when_it_has_loaded_with_the_slots_that_it_says() -> None:
    async with FakeLlama(3) as llama:
        llama.loading = True
        async with balancer(llama) as made:
            assert not made.dispatcher.has_replica

            llama.loading = False
            await until(lambda: made.dispatcher.total_slots == 3)


async def test_a_replica_that_is_not_there_yet_joins_when_it_comes() -> None:
    async with FakeLlama(1) as llama:
        pass
    async with balancer() as made:
        made.proxy.replicas.set_targets({llama.name: True})
        await asyncio.sleep(0.005)
        assert not made.dispatcher.has_replica

        await llama.start()
        await until(lambda: made.dispatcher.has_replica)
        await llama.stop()


async def test_slots_may_be_said_instead_of_asked_for() -> None:
    async with FakeLlama(1) as llama, balancer(llama, slots=5) as made:
        assert made.dispatcher.total_slots == 5
        assert llama.looks == 0


async def test_a_replica_set_aside_comes_back_when_it_is_well_with_the_slots_it_has_then() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        await llama.stop()
        async with await made.start(post("/completion")) as client:
            await until(lambda: not made.dispatcher.has_replica)
            llama.slots = 2
            await llama.start()

            assert (await client.response()).status == 200
        assert made.dispatcher.total_slots == 2


async def test_a_leaving_replica_ends_its_streams_and_gets_nothing_new() -> None:
    async with FakeLlama(1, when_told) as old, FakeLlama(1) as new, balancer(old) as made:
        async with await made.start(post("/completion")) as client:
            await old.called(1)
            made.proxy.replicas.set_targets({old.name: False, new.name: True})
            await until(lambda: made.dispatcher.has_replica)
            assert (await made.ask(post("/completion"))).status == 200
            made.proxy.replicas.set_targets({new.name: True})

            old.calls[0].go.set()
            assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        await made.at_rest()
        assert list(made.dispatcher.replicas) == [new.name]
        assert (len(old.calls), len(new.calls)) == (1, 1)


async def test_a_replica_that_turns_ready_again_is_used_again() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        made.proxy.replicas.set_targets({llama.name: False})
        assert not made.dispatcher.has_replica
        made.proxy.replicas.set_targets({llama.name: True})

        assert (await made.ask(post("/completion"))).status == 200


async def test_an_abandoned_request_on_a_leaving_replica_does_no_harm() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        client = await made.start(post("/completion"))
        await llama.called(1)
        made.proxy.replicas.set_targets({})
        client.reset()

        await made.at_rest()
        assert made.dispatcher.replicas == {}


async def test_a_replica_that_vanishes_with_an_abandoned_request_holds_no_slot() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        llama.lets_go.clear()
        client = await made.start(post("/completion"))
        await llama.called(1)
        client.reset()
        await until(lambda: llama.looks > 2)
        await llama.stop()

        await made.at_rest()
        assert not made.dispatcher.has_replica


async def test_a_slot_that_is_never_let_go_of_is_given_back_in_the_end() -> None:
    impatient = ReplicaTimeouts(
        join=QUICK.join,
        response=QUICK.response,
        release_poll=QUICK.release_poll,
        slot_release=0.02,
    )
    async with FakeLlama(1, when_told) as llama, balancer(llama, patience=impatient) as made:
        llama.lets_go.clear()
        client = await made.start(post("/completion"))
        await llama.called(1)
        client.reset()

        await made.at_rest()
        assert made.metric("slot_release_timeouts_total") == 1
        llama.lets_go.set()


@pytest.mark.parametrize("status", ["404 Not Found", "501 Not Implemented"])
async def test_where_there_is_no_slots_route_closing_is_letting_go(status: str) -> None:
    class Without(FakeLlama):
        @override
        async def _about_itself(self, call: Call) -> None:
            if call.path == "/slots":
                await call.whole({"error": {"message": "off"}}, status)
            else:
                await call.whole({"status": "ok"})

    async with Without(1, when_told) as llama, balancer(llama, slots=1) as made:
        client = await made.start(post("/completion"))
        await llama.called(1)
        client.reset()

        await made.at_rest()
        assert made.metric("slot_release_timeouts_total") == 0


async def test_other_requests_of_a_replica_do_not_hide_an_abandoned_one() -> None:
    async with FakeLlama(3, when_told) as llama, balancer(llama) as made:
        llama.lets_go.clear()
        clients = [await made.start(post("/completion")) for _ in range(3)]
        await llama.called(3)
        clients[1].reset()
        await until(lambda: llama.looks > 5)
        assert made.dispatcher.busy_slots == 3

        for number in (0, 2):
            llama.calls[number].go.set()
            assert (await clients[number].response()).status == 200
        looks = llama.looks
        await until(lambda: llama.looks > looks + 5)
        assert made.dispatcher.busy_slots == 1

        llama.lets_go.set()
        await made.at_rest()
        assert llama.over_commits == 0
