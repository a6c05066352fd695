"""The fake is what the figures stand on: it must count slots as a llama-server does."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from typing_extensions import override

from bench.balancer.client import Answer, Client, Clients
from bench.balancer.fake_server import Fakes
from bench.balancer.jobs import Job, request
from wait_until import until

LONG = Job(service_us=60_000_000)


class Bench:
    """One replica and connections to it."""

    def __init__(self, fakes: Fakes, port: int) -> None:
        self.fakes = fakes
        self.port = port
        self.clients: list[Client] = []

    async def send(self, job: Job) -> tuple[Client, Answer]:
        client, answer = await Clients(self.port).take(), Answer()
        client.ask(request(job), answer)
        self.clients.append(client)
        return client, answer

    async def answered(self, job: Job) -> dict[str, int]:
        _, answer = await self.send(job)
        status, body = await answer.whole()
        assert status == 200
        return dict(json.loads(body))


@pytest.fixture
async def one_slot() -> AsyncIterator[Bench]:
    fakes = Fakes()
    [port] = await fakes.serve(1, slots=1, step_us=1000, cache=2, miss_us=1000)
    made = Bench(fakes, port)
    async with asyncio.timeout(10):
        yield made
    for client in made.clients:
        client.abort()
    await fakes.serve(0, slots=1)


async def test_what_finds_a_free_slot_is_no_over_commit(one_slot: Bench) -> None:
    await one_slot.answered(Job())
    await one_slot.answered(Job())

    stats = await one_slot.fakes.stats()

    assert (stats["over_commits"], stats["started"], stats["most_at_once"]) == (0, 2, 1)


async def test_one_more_than_the_slots_is_counted_and_waits(one_slot: Bench) -> None:
    client, _ = await one_slot.send(LONG)
    await until(lambda: one_slot.fakes.busy == 1)
    _, second = await one_slot.send(Job())
    await until(lambda: one_slot.fakes.record.over_commits == 1)

    client.abort()

    status, _ = await second.whole()
    stats = await one_slot.fakes.stats()
    assert (status, stats["most_at_once"]) == (200, 1)


async def test_a_slot_comes_free_some_time_after_its_client_left(one_slot: Bench) -> None:
    client, _ = await one_slot.send(LONG)
    await until(lambda: one_slot.fakes.busy == 1)

    client.abort()
    await until(lambda: one_slot.fakes.busy == 0)

    assert len(one_slot.fakes.record.let_go) == 1


async def test_prompts_are_forgotten_the_oldest_first(one_slot: Bench) -> None:
    hits = [
        (await one_slot.answered(Job(session=session)))["hit"] for session in (1, 2, 1, 3, 1, 2)
    ]

    assert hits == [False, False, True, False, True, False]


async def test_while_loading_it_answers_503(one_slot: Bench) -> None:
    await one_slot.fakes.loading(0, True)

    _, answer = await one_slot.send(Job())

    assert (await answer.whole())[0] == 503


async def test_each_token_of_a_stream_says_when_it_was_sent(one_slot: Bench) -> None:
    class Listening(Answer):
        data = b""

        @override
        def on_data(self, data: bytes, now: int) -> None:
            self.data += data
            super().on_data(data, now)

    client, answer = await Clients(one_slot.port).take(), Listening()
    one_slot.clients.append(client)

    client.ask(request(Job(tokens=3, interval_us=1)), answer)
    await answer.whole()

    times = [int(part[:19]) for part in answer.data.split(b'"t":')[1:]]
    assert len(times) == 3
    assert times == sorted(times)
