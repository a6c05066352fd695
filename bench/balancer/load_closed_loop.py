"""Closed-loop load: each connection sends the next request when the previous one has ended."""

import asyncio
from dataclasses import dataclass, field

from bench.balancer.client import Client, ConnectionPool, now_ns
from bench.balancer.jobs import Job, chat_request, request
from bench.balancer.stats import summary
from bench.processes import cpu_seconds


@dataclass
class _Run:
    until: int
    """Time in nanoseconds."""
    max_requests: int
    latencies: list[int] = field(default_factory=list)
    failed: int = 0

    @property
    def finished(self) -> bool:
        return now_ns() >= self.until or len(self.latencies) >= self.max_requests


class _Connection:
    def __init__(self, run: _Run, client: Client, data: bytes) -> None:
        self._run = run
        self._client = client
        self._data = data
        self._sent = client.send(data, self)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_data(self, data: bytes, now: int) -> None:
        pass

    def on_end(self, status: int, body: bytes) -> None:  # noqa: ARG002 (ResponseHandler's)
        run = self._run
        run.latencies.append(now_ns() - self._sent)
        run.failed += status != 200
        if run.finished or not status:
            self.done.set_result(None)
        else:
            self._sent = self._client.send(self._data, self)


async def closed_loop(  # noqa: PLR0913 (a command with its options)
    ports: list[int],
    connections: int,
    seconds: float,
    *,
    pid: int | None = None,
    max_requests: int = 1 << 60,
    headers: list[str] | None = None,
    size: int = 0,
) -> dict[str, object]:
    """Send requests on `connections` connections for `seconds`, or until `max_requests`.

    `headers`: send chat completions, with these further headers and `size` bytes of text. Returns
    latencies in ms, and the CPU seconds that process `pid` used meanwhile.
    """
    pools = [ConnectionPool(port) for port in ports]
    clients = [await pools[each % len(pools)].acquire() for each in range(connections)]
    began = now_ns()
    run = _Run(began + round(seconds * 1e9), max_requests)
    before = cpu_seconds(pid) if pid else 0.0
    data = request(Job()) if headers is None else chat_request(Job(), headers, size)
    await asyncio.gather(*(_Connection(run, client, data).done for client in clients))
    cpu = cpu_seconds(pid) - before if pid else 0.0
    for client in clients:
        client.abort()
    return {
        "requests": len(run.latencies),
        "seconds": (now_ns() - began) / 1e9,
        "failed": run.failed,
        "cpu_seconds": cpu,
        "latency_ms": summary(run.latencies, 1e-6),
    }
