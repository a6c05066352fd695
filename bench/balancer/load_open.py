"""A trace, sent when it says, whatever has been answered by then."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from bench.balancer.client import Client, Clients, now_ns
from bench.balancer.ideal import fifo_waits, overtaken
from bench.balancer.jobs import Job, request
from bench.balancer.stats import summary
from bench.balancer.trace import Shape, draw

_TOLERANCE_NS = 5_000_000
_PROMPT = 4096


@dataclass
class _Sent:
    arrival: int = 0
    start: int = 0
    end: int = 0
    status: int = -1
    hit: bool = False


@dataclass
class _Run:
    sent: list[_Sent]
    left: int
    done: asyncio.Event = field(default_factory=asyncio.Event)


class _One:
    def __init__(self, run: _Run, number: int, clients: Clients, client: Client) -> None:
        self._run = run
        self._sent = run.sent[number]
        self._clients = clients
        self._client = client

    def ask(self, data: bytes) -> None:
        self._sent.arrival = self._client.ask(data, self)

    def on_data(self, data: bytes, now: int) -> None:
        pass

    def on_end(self, status: int, body: bytes) -> None:
        sent = self._sent
        run = self._run
        sent.status = status
        if status == 200:
            said = json.loads(body)
            sent.start = said["start"]
            sent.end = said["end"]
            sent.hit = said["hit"]
        if status:
            self._clients.give_back(self._client)
        run.left -= 1
        if not run.left:
            run.done.set()


async def trace(ports: list[int], pick: str, shape: dict[str, Any]) -> dict[str, object]:
    """Send the trace of `shape` and wait for all answers; waits in ms.

    `pick`: how a port is chosen for each request, "random" or "round robin". The ideal is computed
    on the trace as it came to pass: when requests were really sent, and how long the fakes really
    took. What clocks and timers add is in both then, and in neither's difference.
    """
    drawn = draw(Shape(**shape))
    rng = random.Random(shape["seed"] + 1)
    pools = [Clients(port) for port in ports]
    run = _Run([_Sent() for _ in drawn], len(drawn))
    began = now_ns()
    for number, each in enumerate(drawn):
        early = each.at - (now_ns() - began) / 1e9
        if early > 0:
            await asyncio.sleep(early)
        pool = rng.choice(pools) if pick == "random" else pools[number % len(pools)]
        job = Job(number, max(1, round(each.service * 1e6)), session=each.session)
        one = _One(run, number, pool, await pool.take())
        one.ask(request(job, _body(each.session, number)))
    await run.done.wait()
    for pool in pools:
        pool.close()
    slots = shape["slots"]
    return {
        "drawn": {
            "ideal_ms": summary(
                fifo_waits([each.at for each in drawn], [each.service for each in drawn], slots),
                1e3,
            )
        },
        **_outcome(run.sent, slots, warm=bool(shape.get("sessions"))),
    }


def _outcome(all_sent: list[_Sent], slots: int, *, warm: bool) -> dict[str, object]:
    answered = [sent for sent in all_sent if sent.status == 200]
    arrivals = [sent.arrival for sent in answered]
    starts = [sent.start for sent in answered]
    services = [sent.end - sent.start for sent in answered]
    waits = [start - arrival for start, arrival in zip(starts, arrivals, strict=True)]
    # The caches are empty at first: what fills them is not counted.
    settled = answered[len(answered) // 4 :] if warm else answered
    return {
        "requests": len(all_sent),
        "lost": len(all_sent) - len(answered),
        "overtaken": overtaken(arrivals, starts, _TOLERANCE_NS),
        "load": _load(answered, slots),
        "wait_ms": summary(waits, 1e-6),
        "ideal_ms": summary(fifo_waits(arrivals, services, slots), 1e-6),
        "hits": sum(sent.hit for sent in settled) / len(settled),
        "settled_wait_ms": summary([sent.start - sent.arrival for sent in settled], 1e-6),
        "settled_load": _load(settled, slots),
    }


def _load(sent: list[_Sent], slots: int) -> float:
    span = sent[-1].arrival - sent[0].arrival
    return sum(each.end - each.start for each in sent) / span / slots


def _body(session: int, number: int) -> bytes:
    if session < 0:
        return b'{"prompt": "hello"}'
    # As a chat is: what was said before is the same each time, and long; the question is new.
    said = (f"Session {session} said. " * (_PROMPT // 12))[:_PROMPT]
    return json.dumps({"prompt": f"{said} Question {number}?"}).encode()
