import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import RawClient, post
from wait_until import until


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_client_that_disconnects_while_queued_reaches_no_replica(
    how: str,
) -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        async with await balancer.start_request(post("/completion")):
            queued = await balancer.start_request(post("/completion", b"mine"))
            _disconnect(queued, how)
            await until(lambda: balancer.dispatcher.queued == 0)
            llama.calls[0].proceed.set()
            await balancer.wait_idle()

        assert len(llama.calls) == 1
        assert [line["outcome"] for line in balancer.access_log()] == [
            "client_disconnected",
            "completed",
        ]


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_client_that_disconnects_while_running_ends_the_request_at_the_replica(
    how: str,
) -> None:
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        client = await balancer.start_request(post("/completion"))
        await client.reader.readuntil(b"data: first\n\n\r\n")
        _disconnect(client, how)

        await llama.calls[0].disconnected.wait()
        await balancer.wait_idle()
        assert balancer.metric("slot_release_duration_seconds_count") == 1


async def test_the_slot_of_an_aborted_request_is_reused_only_when_the_replica_has_freed_it() -> (
    None
):
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama) as balancer:
        llama.frees_slots.clear()
        client = await balancer.start_request(post("/completion"))
        await llama.wait_calls(1)
        client.reset()
        await until(lambda: not balancer.proxy.active)
        async with await balancer.start_request(post("/completion")) as second:
            await until(lambda: llama.slots_polls > 5)
            assert (balancer.dispatcher.busy_slots, balancer.dispatcher.queued) == (1, 1)

            llama.frees_slots.set()
            calls = await llama.wait_calls(2)
            calls[1].proceed.set()
            assert (await second.response()).status == 200
        assert llama.overcommitted == 0


def _disconnect(client: RawClient, how: str) -> None:
    if how == "close":
        client.writer.close()
    elif how == "half-close":
        client.writer.write_eof()
    else:
        client.reset()
