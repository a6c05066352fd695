"""Measures the memory of queued requests and open streams, and whether memory grows."""

import asyncio

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Scale
from bench.balancer.systems import PROXIES, System
from bench.balancer.testbed import get_json, testbed
from bench.findings import Findings, Plot, Table, at_most, digits
from bench.processes import memory

_QUEUED = 4000
_BODY = 32 * 1024
_STREAMS = 2000
_REQUESTS = 10_000


async def measure(scale: Scale) -> Findings:
    """Measure each proxy separately: peak resident memory in MB."""
    small = scale.length < 1
    queued, streams = (400, 200) if small else (_QUEUED, _STREAMS)
    measured: dict[str, dict[str, float]] = {}
    for system in PROXIES:
        measured[system.name] = {
            "idle": await _idle(system),
            "queued": await _queued(system, queued),
            "streams": await _streams(system, streams),
            "growth": await _growth(system, _REQUESTS // (10 if small else 1)),
        }
    ours = measured["slotkeeper"]
    return Findings(
        "memory",
        tables=[
            Table(
                "Memory of the proxy",
                (
                    "system",
                    "idle MB",
                    f"{queued} queued of 32 kB",
                    f"{streams} open streams",
                    f"growth over {_REQUESTS:,} requests",
                ),
                [
                    (name, *(digits(value) for value in each.values()))
                    for name, each in measured.items()
                ],
                "Peak resident memory. nginx has no queue: it has sent the requests that we queue "
                f"to the replica. Growth: from {_REQUESTS:,} to {2 * _REQUESTS:,} requests.",
            )
        ],
        gates=[
            at_most(f"memory, {queued} queued requests of 32 kB", ours["queued"], 300, "MB"),
            at_most(f"memory, {streams} open streams", ours["streams"], 400, "MB"),
            at_most(f"growth over {_REQUESTS:,} requests", ours["growth"], 1, "MB"),
        ],
        plots=[
            Plot(
                "memory",
                "Peak resident memory of the proxy",
                "MB",
                {
                    name: {key: value for key, value in each.items() if key != "growth"}
                    for name, each in measured.items()
                },
            )
        ],
        raw=dict(measured),
    )


async def _idle(system: System) -> float:
    async with testbed(1, ReplicaOptions(slots=1), (system,)) as bed:
        [running] = bed.running
        assert running.pid
        return memory(running.pid).highest


async def _queued(system: System, count: int) -> float:
    async with testbed(1, ReplicaOptions(slots=1), (system,)) as bed:
        [running] = bed.running
        assert running.pid
        await bed.load.call("hold", port=running.ports[0], count=count + 1, size=_BODY, tokens=0)
        await asyncio.sleep(1)
        if system.counts_replicas:
            demand = await get_json(running.setup.metrics_port, "/autoscaling")
            if demand["queued"] != count:
                raise RuntimeError(f"{demand['queued']} requests are queued instead of {count}")
        return memory(running.pid).highest


async def _streams(system: System, count: int) -> float:
    async with testbed(8, ReplicaOptions(slots=count // 8), (system,)) as bed:
        [running] = bed.running
        assert running.pid
        began = await bed.load.call(
            "hold", port=running.ports[0], count=count, size=20, tokens=1000
        )
        if began != count:
            raise RuntimeError(f"{began} streams have begun instead of {count}")
        await asyncio.sleep(3)
        return memory(running.pid).highest


async def _growth(system: System, requests: int) -> float:
    async with testbed(8, ReplicaOptions(slots=8), (system,)) as bed:
        [running] = bed.running
        assert running.pid
        after = []
        for _ in range(2):
            await bed.load.call(
                "closed_loop",
                ports=running.ports,
                connections=32,
                seconds=120,
                max_requests=requests,
            )
            after.append(memory(running.pid).now)
        return after[1] - after[0]
