"""So many streams at a time: when one has ended, its seat begins another."""

import asyncio
import random
from dataclasses import dataclass, field

from bench.balancer.client import Client, Clients, now_ns
from bench.balancer.jobs import Job, request
from bench.balancer.stats import summary
from bench.processes import cpu_seconds

_MARK = b'"t":'
_DIGITS = 19


@dataclass
class _Run:
    rng: random.Random
    interval_us: int
    least: int
    most: int
    measuring: bool = False
    over: bool = False
    first: list[int] = field(default_factory=list)
    """Nanoseconds from sending a request to its first token; the fakes send it at once."""
    delays: list[int] = field(default_factory=list)
    """Nanoseconds from when a fake sent a token to when it was read here."""
    streams: int = 0
    failed: int = 0

    def job(self) -> Job:
        tokens = self.rng.randint(self.least, self.most)
        return Job(tokens=tokens, interval_us=self.interval_us)


class _Seat:
    def __init__(self, run: _Run, client: Client) -> None:
        self._run = run
        self._client = client
        self._rest = b""
        self._waiting = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent = client.ask(request(run.job()), self)

    def on_data(self, data: bytes, now: int) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        run = self._run
        at = data.find(_MARK)
        if at < 0:
            return
        if self._waiting:
            self._waiting = False
            if run.measuring:
                run.first.append(now - self._sent)
        while at >= 0:
            digits = data[at + len(_MARK) : at + len(_MARK) + _DIGITS]
            if len(digits) < _DIGITS:
                self._rest = data[at:]
                return
            if run.measuring:
                run.delays.append(now - int(digits))
            at = data.find(_MARK, at + _DIGITS)

    def on_end(self, status: int, body: bytes) -> None:  # noqa: ARG002 (Asker's)
        run = self._run
        run.streams += 1
        run.failed += status != 200
        if run.over or not status:
            self.done.set_result(None)
            return
        self._waiting = True
        self._sent = self._client.ask(request(run.job()), self)


async def streams(
    ports: list[int],
    seats: int,
    seconds: float,
    *,
    seed: int,
    interval_us: int = 50_000,
    pid: int | None = None,
) -> dict[str, object]:
    """Measure `seats` streams for `seconds`, after they have spread out.

    A stream has 10 to 30 tokens, so that first tokens come all the time. Times in ms, and the CPU
    seconds that process `pid` used while it was measured.
    """
    pools = [Clients(port) for port in ports]
    run = _Run(random.Random(seed), interval_us, least=10, most=30)
    sitting = []
    for number in range(seats):
        client = await pools[number % len(pools)].take()
        sitting.append((_Seat(run, client), client))
        if number % 10 == 9:
            # Spread over half a second, or the tokens of all would come at once.
            await asyncio.sleep(5 / seats)
    await asyncio.sleep(0.3)
    run.measuring = True
    before = cpu_seconds(pid) if pid else 0.0
    began = now_ns()
    await asyncio.sleep(seconds)
    cpu = cpu_seconds(pid) - before if pid else 0.0
    elapsed = now_ns() - began
    run.measuring = False
    run.over = True
    await asyncio.gather(*(seat.done for seat, _ in sitting))
    for _, client in sitting:
        client.abort()
    return {
        "tokens": len(run.delays),
        "tokens_per_second": len(run.delays) / elapsed * 1e9,
        "streams": run.streams,
        "failed": run.failed,
        "cpu_seconds": cpu,
        "first_ms": summary(run.first, 1e-6),
        "delay_ms": summary(run.delays, 1e-6),
    }
