"""As many requests as so many connections carry: each asks again when it is answered."""

import asyncio
from dataclasses import dataclass, field

from bench.balancer.client import Client, Clients, now_ns
from bench.balancer.jobs import Job, request
from bench.balancer.stats import summary
from bench.processes import cpu_seconds


@dataclass
class _Run:
    until: int
    """In nanoseconds."""
    most: int
    took: list[int] = field(default_factory=list)
    failed: int = 0

    @property
    def over(self) -> bool:
        return now_ns() >= self.until or len(self.took) >= self.most


class _Seat:
    def __init__(self, run: _Run, client: Client, data: bytes) -> None:
        self._run = run
        self._client = client
        self._data = data
        self._sent = client.ask(data, self)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_data(self, data: bytes, now: int) -> None:
        pass

    def on_end(self, status: int, body: bytes) -> None:  # noqa: ARG002 (Asker's)
        run = self._run
        run.took.append(now_ns() - self._sent)
        run.failed += status != 200
        if run.over or not status:
            self.done.set_result(None)
        else:
            self._sent = self._client.ask(self._data, self)


async def closed(
    ports: list[int],
    connections: int,
    seconds: float,
    *,
    pid: int | None = None,
    most: int = 1 << 60,
) -> dict[str, object]:
    """Ask on `connections` connections for `seconds`, or until `most` answers.

    Latency in ms, and the CPU seconds that process `pid` used meanwhile.
    """
    pools = [Clients(port) for port in ports]
    clients = [await pools[each % len(pools)].take() for each in range(connections)]
    run = _Run(now_ns() + round(seconds * 1e9), most)
    before = cpu_seconds(pid) if pid else 0.0
    data = request(Job())
    await asyncio.gather(*(_Seat(run, client, data).done for client in clients))
    cpu = cpu_seconds(pid) - before if pid else 0.0
    for client in clients:
        client.abort()
    return {
        "requests": len(run.took),
        "failed": run.failed,
        "cpu_seconds": cpu,
        "latency_ms": summary(run.took, 1e-6),
    }
