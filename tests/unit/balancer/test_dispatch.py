from balancer_harness import balancer
from fake_llama import FakeLlama, answer_at_once, when_told
from raw_http import post


async def test_a_replica_has_as_many_requests_as_slots_and_no_more() -> None:
    async with (
        FakeLlama(3, when_told) as first,
        FakeLlama(2, when_told) as second,
        balancer(first, second) as made,
    ):
        clients = [await made.start(post("/completion")) for _ in range(9)]
        await first.called(3)
        await second.called(2)
        assert (made.dispatcher.busy_slots, made.dispatcher.queued) == (5, 4)

        for llama in (first, second):
            llama.script = answer_at_once
            for call in llama.calls:
                call.go.set()
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()
        await made.at_rest()
        assert (first.over_commits, second.over_commits) == (0, 0)
        assert (first.most_at_once, second.most_at_once) == (3, 2)


async def test_who_came_first_is_served_first() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        names = [f"{number}".encode() for number in range(8)]
        clients = [await made.start(post("/completion", name)) for name in names]
        for number in range(len(names)):
            calls = await llama.called(number + 1)
            calls[number].go.set()
        for client in clients:
            await client.response()
            await client.close()

    assert [call.body for call in llama.calls] == names


async def test_requests_wait_for_a_first_replica() -> None:
    async with (
        FakeLlama() as llama,
        balancer() as made,
        await made.start(post("/completion")) as client,
    ):
        made.proxy.replicas.set_targets({llama.name: True})

        assert (await client.response()).status == 200
