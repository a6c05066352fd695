"""The load generator's process and its commands."""

import asyncio
import json
import random

from bench.balancer.client import Client, ConnectionPool, PendingResponse, now_ns
from bench.balancer.jobs import Job, request
from bench.balancer.load_closed_loop import closed_loop
from bench.balancer.load_open_loop import open_loop
from bench.balancer.load_streams import streams
from bench.balancer.worker import run

_open: list[Client] = []
"""Connections of `hold`."""


async def send_one(port: int, service_us: int = 0, size: int = 20) -> dict[str, int]:
    """Send one request with a body of `size` bytes.

    Returns its status, the sending time and the fake's start and end times, in ns.
    """
    client = await ConnectionPool(port).acquire()
    response = PendingResponse()
    sent = client.send(request(Job(service_us=service_us), b"x" * size), response)
    status, body = await response.complete()
    client.abort()
    if status != 200:
        return {"status": status, "sent": sent}
    return {"status": status, "sent": sent, **json.loads(body)}


async def bodies(port: int, size: int, per_second: float, seconds: float) -> int:
    """Send bodies of `size` bytes at a constant rate on one connection; return their number."""
    client = await ConnectionPool(port).acquire()
    data = request(Job(), b"x" * size)
    began = now_ns()
    count = 0
    while (elapsed := (now_ns() - began) / 1e9) < seconds:
        await asyncio.sleep(max(0, count / per_second - elapsed))
        response = PendingResponse()
        client.send(data, response)
        status, _ = await response.complete()
        if status != 200:
            raise RuntimeError(f"request with a body of {size} bytes: status {status}")
        count += 1
    client.abort()
    return count


async def aborts(port: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Use the only slot, queue a second request, disconnect the first client; repeat.

    Returns the times in ns of each disconnect and of the second request's start. The first request
    is a stream with a token every 10 ms.
    """
    rng = random.Random(seed)
    pool = ConnectionPool(port)
    times = []
    for _ in range(count):
        client = await pool.acquire()
        first = PendingResponse()
        client.send(request(Job(tokens=10_000, interval_us=10_000)), first)
        await first.began.wait()
        second_client = await pool.acquire()
        second = PendingResponse()
        second_client.send(request(Job()), second)
        await asyncio.sleep(rng.uniform(0.02, 0.04))
        disconnected = now_ns()
        client.abort()
        status, body = await second.complete()
        if status != 200:
            raise RuntimeError(f"queued request: status {status}")
        times.append((disconnected, json.loads(body)["start"]))
        pool.release(second_client)
    pool.close()
    return times


async def hold(port: int, count: int, size: int, tokens: int) -> int:
    """Open `count` requests and keep them; with `tokens`, wait for each one's first token.

    Returns the number of requests whose response has begun.
    """
    pool = ConnectionPool(port)
    job = Job(tokens=tokens, interval_us=1_000_000) if tokens else Job(service_us=600_000_000)
    data = request(job, b"x" * size)
    responses = []
    for number in range(count):
        client = await pool.acquire()
        response = PendingResponse()
        client.send(data, response)
        _open.append(client)
        responses.append(response)
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    if tokens:
        await asyncio.gather(*(response.began.wait() for response in responses))
    return sum(response.first > 0 for response in responses)


async def release() -> None:
    """Close the connections of `hold`."""
    while _open:
        _open.pop().abort()


if __name__ == "__main__":
    run(
        {
            command.__name__: command
            for command in (
                closed_loop,
                streams,
                open_loop,
                send_one,
                bodies,
                aborts,
                hold,
                release,
            )
        }
    )
