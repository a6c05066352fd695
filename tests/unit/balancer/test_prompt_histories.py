"""Random histories of requests whose prompts are saved and restored."""

import asyncio
import random
from pathlib import Path

import pytest

from balancer_harness import Balancer, run_balancer
from fake_llama import Call, FakeLlama
from prompt_slots import FakeAgent, PromptSlots, chat, reserved_port
from wait_until import until

TEXTS = tuple(letter * (2000 + 100 * number) for number, letter in enumerate("abcdef"))


@pytest.mark.parametrize("seed", range(6))
async def test_no_request_is_lost_and_no_slot_overcommitted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def sometimes_wait(_: Call) -> None:
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() / 50)

    with reserved_port() as port:
        async with (
            FakeLlama(2) as first,
            FakeLlama(2, host="127.0.0.2") as second,
            FakeAgent(tmp_path, port=port) as agent,
            FakeAgent(tmp_path, host="127.0.0.2", port=port) as other,
        ):
            other.records = agent.records
            llamas = first, second
            for llama in llamas:
                PromptSlots(
                    llama, tmp_path, before_response=sometimes_wait, before_action=sometimes_wait
                )
            async with run_balancer(*llamas, prompt_files=port) as balancer:
                # The more files there are, the more restores.
                for text in TEXTS:
                    for _ in range(2):
                        await balancer.request(chat(text))
                await until(lambda: agent.records)
                events = asyncio.create_task(_disturb(balancer, llamas, chance))
                requests = [asyncio.create_task(_request(balancer, chance)) for _ in range(60)]
                statuses = await asyncio.gather(*requests)
                await events
                await balancer.wait_idle()

                assert {status for status in statuses if status} == {200}
                assert [llama.overcommitted for llama in llamas] == [0, 0]


async def _request(balancer: Balancer, chance: random.Random) -> int | None:
    """Send a request, and return the status; None if the client has disconnected."""
    await asyncio.sleep(chance.random() / 2)
    async with await balancer.connect() as client:
        await client.send(chat(chance.choice(TEXTS)))
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() / 50)
            return None
        return (await client.response()).status


async def _disturb(
    balancer: Balancer, llamas: tuple[FakeLlama, FakeLlama], chance: random.Random
) -> None:
    """Change leader and replicas while requests run; everything is well at the end."""
    proxy = balancer.proxy
    every = {llama.name: True for llama in llamas}
    for _ in range(12):
        await asyncio.sleep(chance.random() / 20)
        match chance.randrange(4):
            case 0:
                proxy.pause(True)
                await asyncio.sleep(chance.random() / 50)
                proxy.pause(False)
            case 1:
                proxy.become_standby(None)
                await until(lambda: proxy.all_visible)
                proxy.become_leader()
            case 2:
                leaving = chance.choice(llamas)
                proxy.set_replicas({**every, leaving.name: False})
                await asyncio.sleep(chance.random() / 50)
                proxy.set_replicas(every)
            case _:
                for llama in llamas:
                    # As after a restart that no endpoint showed.
                    balancer.dispatcher.affinity_scheduler.prefix_index.remove(llama.name)
    proxy.set_replicas(every)
