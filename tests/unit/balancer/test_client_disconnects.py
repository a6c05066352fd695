import pytest

from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, post
from wait_until import until


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_who_gives_up_while_waiting_leaves_the_queue_and_reaches_no_replica(
    leave: str,
) -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        async with await made.start(post("/completion")):
            waiting = await made.start(post("/completion", b"mine"))
            _leave(waiting, leave)
            await until(lambda: made.dispatcher.queued == 0)
            llama.calls[0].go.set()
            await made.at_rest()

        assert len(llama.calls) == 1
        assert [line["outcome"] for line in made.lines()] == ["client_disconnected", "completed"]


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_who_gives_up_while_running_ends_the_request_at_the_replica(leave: str) -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        client = await made.start(post("/completion"))
        await client.reader.readuntil(b"data: first\n\n\r\n")
        _leave(client, leave)

        await llama.calls[0].gone.wait()
        await made.at_rest()
        assert made.metric("slot_release_duration_seconds_count") == 1


async def test_an_abandoned_slot_is_given_on_only_when_the_replica_has_let_go_of_it() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama) as made:
        llama.lets_go.clear()
        client = await made.start(post("/completion"))
        await llama.called(1)
        client.reset()
        await until(lambda: not made.proxy.active)
        async with await made.start(post("/completion")) as second:
            await until(lambda: llama.looks > 5)
            assert (made.dispatcher.busy_slots, made.dispatcher.queued) == (1, 1)

            llama.lets_go.set()
            calls = await llama.called(2)
            calls[1].go.set()
            assert (await second.response()).status == 200
        assert llama.over_commits == 0


def _leave(client: RawClient, way: str) -> None:
    if way == "close":
        client.writer.close()
    elif way == "half-close":
        client.writer.write_eof()
    else:
        client.reset()
