"""Open-loop load: requests are sent at the times of a trace, whatever has completed by then."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from bench.balancer.client import Client, ConnectionPool, now_ns
from bench.balancer.ideal import bypassed, fifo_waits
from bench.balancer.jobs import Job, request
from bench.balancer.stats import summary
from bench.balancer.workload import Workload, draw

_TOLERANCE_NS = 5_000_000
_PROMPT_BYTES = 4096


@dataclass
class _Times:
    """When a request was sent, started on a slot and ended, in nanoseconds."""

    arrival: int = 0
    start: int = 0
    end: int = 0
    status: int = -1
    cache_hit: bool = False


@dataclass
class _Run:
    requests: list[_Times]
    outstanding: int
    done: asyncio.Event = field(default_factory=asyncio.Event)


class _Request:
    def __init__(self, run: _Run, number: int, pool: ConnectionPool, client: Client) -> None:
        self._run = run
        self._times = run.requests[number]
        self._pool = pool
        self._client = client

    def send(self, data: bytes) -> None:
        self._times.arrival = self._client.send(data, self)

    def on_data(self, data: bytes, now: int) -> None:
        pass

    def on_end(self, status: int, body: bytes) -> None:
        times = self._times
        run = self._run
        times.status = status
        if status == 200:
            reported = json.loads(body)
            times.start = reported["start"]
            times.end = reported["end"]
            times.cache_hit = reported["hit"]
        if status:
            self._pool.release(self._client)
        run.outstanding -= 1
        if not run.outstanding:
            run.done.set()


async def open_loop(ports: list[int], pick: str, workload: dict[str, Any]) -> dict[str, object]:
    """Send the requests of `workload` and wait for all responses; waits are in ms.

    `pick`: how the port is chosen for each request, "random" or "round robin". The ideal is
    computed from the workload as it was executed: from the actual sending times and the actual
    times on a slot. So the imprecision of clocks and timers is in both, not in the difference.
    """
    drawn = draw(Workload(**workload))
    rng = random.Random(workload["seed"] + 1)
    pools = [ConnectionPool(port) for port in ports]
    run = _Run([_Times() for _ in drawn], len(drawn))
    began = now_ns()
    for number, arrival in enumerate(drawn):
        delay = arrival.at - (now_ns() - began) / 1e9
        if delay > 0:
            await asyncio.sleep(delay)
        pool = rng.choice(pools) if pick == "random" else pools[number % len(pools)]
        job = Job(number, max(1, round(arrival.service * 1e6)), session=arrival.session)
        each = _Request(run, number, pool, await pool.acquire())
        each.send(request(job, _body(arrival.session, number)))
    await run.done.wait()
    for pool in pools:
        pool.close()
    slots = workload["slots"]
    return {
        "drawn": {
            "ideal_ms": summary(
                fifo_waits([each.at for each in drawn], [each.service for each in drawn], slots),
                1e3,
            )
        },
        **_result(run.requests, slots, with_cache=bool(workload.get("sessions"))),
    }


def _result(requests: list[_Times], slots: int, *, with_cache: bool) -> dict[str, object]:
    completed = [each for each in requests if each.status == 200]
    arrivals = [each.arrival for each in completed]
    starts = [each.start for each in completed]
    services = [each.end - each.start for each in completed]
    waits = [start - arrival for start, arrival in zip(starts, arrivals, strict=True)]
    # The caches are empty at first: the first quarter fills them and is not counted.
    steady = completed[len(completed) // 4 :] if with_cache else completed
    return {
        "requests": len(requests),
        "failed": len(requests) - len(completed),
        "bypassed": bypassed(arrivals, starts, _TOLERANCE_NS),
        "load": _load(completed, slots),
        "wait_ms": summary(waits, 1e-6),
        "ideal_ms": summary(fifo_waits(arrivals, services, slots), 1e-6),
        "cache_hits": sum(each.cache_hit for each in steady) / len(steady),
        "steady_wait_ms": summary([each.start - each.arrival for each in steady], 1e-6),
        "steady_load": _load(steady, slots),
    }


def _load(requests: list[_Times], slots: int) -> float:
    span = requests[-1].arrival - requests[0].arrival
    return sum(each.end - each.start for each in requests) / span / slots


def _body(session: int, number: int) -> bytes:
    if session < 0:
        return b'{"prompt": "hello"}'
    # Like a chat: a long history that is the same in each request, and a new question.
    history = (f"Session {session} text. " * (_PROMPT_BYTES // 12))[:_PROMPT_BYTES]
    return json.dumps({"prompt": f"{history} Question {number}?"}).encode()
