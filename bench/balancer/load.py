"""The load generator's process: its verbs."""

import asyncio
import json
import random

from bench.balancer.client import Answer, Client, Clients, now_ns
from bench.balancer.jobs import Job, request
from bench.balancer.load_closed import closed
from bench.balancer.load_open import trace
from bench.balancer.load_streams import streams
from bench.balancer.worker import run

_held: list[Client] = []


async def ask(port: int, service_us: int = 0, size: int = 20) -> dict[str, int]:
    """One request with a body of `size` bytes; when it started and ended at the fake, in ns."""
    clients = Clients(port)
    client = await clients.take()
    answer = Answer()
    sent = client.ask(request(Job(service_us=service_us), b"x" * size), answer)
    status, body = await answer.whole()
    client.abort()
    if status != 200:
        return {"status": status, "sent": sent}
    return {"status": status, "sent": sent, **json.loads(body)}


async def bodies(port: int, size: int, per_second: float, seconds: float) -> int:
    """Requests with bodies of `size` bytes at an even pace, on one connection; how many."""
    clients = Clients(port)
    client = await clients.take()
    data = request(Job(), b"x" * size)
    began = now_ns()
    count = 0
    while (late := (now_ns() - began) / 1e9) < seconds:
        await asyncio.sleep(max(0, count / per_second - late))
        answer = Answer()
        client.ask(data, answer)
        status, _ = await answer.whole()
        if status != 200:
            raise RuntimeError(f"a body of {size} bytes is answered with {status}")
        count += 1
    client.abort()
    return count


async def aborts(port: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Take the one slot, let another wait for it, leave; when left and when the other started.

    In nanoseconds. The one who leaves has a stream of a token each 10 ms.
    """
    rng = random.Random(seed)
    clients = Clients(port)
    found = []
    for _ in range(count):
        client = await clients.take()
        first = Answer()
        client.ask(request(Job(tokens=10_000, interval_us=10_000)), first)
        await first.began.wait()
        next_client = await clients.take()
        second = Answer()
        next_client.ask(request(Job()), second)
        await asyncio.sleep(rng.uniform(0.02, 0.04))
        left = now_ns()
        client.abort()
        status, body = await second.whole()
        if status != 200:
            raise RuntimeError(f"who waited is answered with {status}")
        found.append((left, json.loads(body)["start"]))
        clients.give_back(next_client)
    clients.close()
    return found


async def hold(port: int, count: int, size: int, tokens: int) -> int:
    """Open `count` requests and keep them; with `tokens`, until each has its first one.

    How many have got an answer's first bytes by then.
    """
    clients = Clients(port)
    job = Job(tokens=tokens, interval_us=1_000_000) if tokens else Job(service_us=600_000_000)
    data = request(job, b"x" * size)
    answers = []
    for number in range(count):
        client = await clients.take()
        answer = Answer()
        client.ask(data, answer)
        _held.append(client)
        answers.append(answer)
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    if tokens:
        await asyncio.gather(*(answer.began.wait() for answer in answers))
    return sum(answer.first > 0 for answer in answers)


async def release() -> None:
    """Leave with all that is held."""
    while _held:
        _held.pop().abort()


if __name__ == "__main__":
    run(
        {
            verb.__name__: verb
            for verb in (closed, streams, trace, ask, bodies, aborts, hold, release)
        }
    )
