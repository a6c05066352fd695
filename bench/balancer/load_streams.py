"""A constant number of concurrent streams: each connection starts a stream when one has ended."""

import asyncio
import random
from dataclasses import dataclass, field

from bench.balancer.client import Client, ConnectionPool, now_ns
from bench.balancer.fake_server import MARK
from bench.balancer.jobs import Job, chat_request, request
from bench.balancer.stats import summary
from bench.processes import cpu_seconds

_DIGITS = 19


@dataclass
class _Run:
    rng: random.Random
    interval_us: int
    min_tokens: int
    max_tokens: int
    headers: list[str] | None
    measuring: bool = False
    finished: bool = False
    first_delays: list[int] = field(default_factory=list)
    """Nanoseconds from sending a request to its first token; the fakes send it at once."""
    delays: list[int] = field(default_factory=list)
    """Nanoseconds from when a fake sent a token until it was received here."""
    streams: int = 0
    failed: int = 0

    def request(self) -> bytes:
        tokens = self.rng.randint(self.min_tokens, self.max_tokens)
        job = Job(tokens=tokens, interval_us=self.interval_us)
        return request(job) if self.headers is None else chat_request(job, self.headers)


class _Connection:
    def __init__(self, run: _Run, client: Client) -> None:
        self._run = run
        self._client = client
        self._rest = b""
        self._before_first = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent = client.send(run.request(), self)

    def on_data(self, data: bytes, now: int) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        run = self._run
        at = data.find(MARK)
        if at < 0:
            return
        if self._before_first:
            self._before_first = False
            if run.measuring:
                run.first_delays.append(now - self._sent)
        while at >= 0:
            digits = data[at + len(MARK) : at + len(MARK) + _DIGITS]
            if len(digits) < _DIGITS:
                self._rest = data[at:]
                return
            if run.measuring:
                run.delays.append(now - int(digits))
            at = data.find(MARK, at + _DIGITS)

    def on_end(self, status: int, body: bytes) -> None:  # noqa: ARG002 (ResponseHandler's)
        run = self._run
        run.streams += 1
        run.failed += status != 200
        if run.finished or not status:
            self.done.set_result(None)
            return
        self._before_first = True
        self._sent = self._client.send(run.request(), self)


async def streams(  # noqa: PLR0913 (a command with its options)
    ports: list[int],
    concurrency: int,
    seconds: float,
    *,
    seed: int,
    interval_us: int = 50_000,
    pid: int | None = None,
    headers: list[str] | None = None,
) -> dict[str, object]:
    """Measure `concurrency` streams for `seconds`, after their starts have been spread out.

    `headers`: send chat completions, with these further headers. A stream has 10 to 30 tokens, so
    that first tokens arrive all the time. Returns times in ms, and the CPU seconds that process
    `pid` used during the measurement.
    """
    pools = [ConnectionPool(port) for port in ports]
    run = _Run(random.Random(seed), interval_us, 10, 30, headers)
    connections = []
    spread_seconds = max(0.5, concurrency / 1000)
    for number in range(concurrency):
        client = await pools[number % len(pools)].acquire()
        connections.append((_Connection(run, client), client))
        if number % 10 == 9:
            # Otherwise the tokens of all streams would coincide.
            await asyncio.sleep(10 * spread_seconds / concurrency)
    await asyncio.sleep(0.3)
    run.measuring = True
    before = cpu_seconds(pid) if pid else 0.0
    began = now_ns()
    await asyncio.sleep(seconds)
    cpu = cpu_seconds(pid) - before if pid else 0.0
    elapsed = now_ns() - began
    run.measuring = False
    run.finished = True
    await asyncio.gather(*(connection.done for connection, _ in connections))
    for _, client in connections:
        client.abort()
    return {
        "tokens": len(run.delays),
        "tokens_per_second": len(run.delays) / elapsed * 1e9,
        "streams": run.streams,
        "failed": run.failed,
        "cpu_seconds": cpu,
        "first_ms": summary(run.first_delays, 1e-6),
        "delay_ms": summary(run.delays, 1e-6),
    }
