"""What waiting requests and open streams hold in memory, and whether it grows."""

import asyncio

from bench.balancer.bed import bed, get_json
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Scale
from bench.balancer.systems import PROXIES, System
from bench.findings import Findings, Plot, Table, at_most, digits
from bench.processes import memory

_WAITING = 4000
_BODY = 32 * 1024
_STREAMS = 2000
_REQUESTS = 10_000


async def measure(scale: Scale) -> Findings:
    """Each proxy on its own: highest resident memory in MB."""
    small = scale.length < 1
    waiting, streams = (400, 200) if small else (_WAITING, _STREAMS)
    found: dict[str, dict[str, float]] = {}
    for system in PROXIES:
        found[system.name] = {
            "at rest": await _at_rest(system),
            "waiting": await _waiting(system, waiting),
            "streams": await _streams(system, streams),
            "growth": await _growth(system, _REQUESTS // (10 if small else 1)),
        }
    ours = found["slotkeeper"]
    return Findings(
        "memory",
        tables=[
            Table(
                "Memory of the proxy",
                (
                    "system",
                    "at rest MB",
                    f"{waiting} waiting of 32 kB",
                    f"{streams} open streams",
                    f"growth over {_REQUESTS:,} requests",
                ),
                [
                    (name, *(digits(value) for value in each.values()))
                    for name, each in found.items()
                ],
                "Highest resident memory. nginx has no queue: what waits for us has gone on to the "
                "replica there. Growth: resident memory after so many requests, and after as many "
                "again.",
            )
        ],
        gates=[
            at_most(f"memory, {waiting} waiting requests of 32 kB", ours["waiting"], 300, "MB"),
            at_most(f"memory, {streams} open streams", ours["streams"], 400, "MB"),
            at_most(f"growth over {_REQUESTS:,} requests", ours["growth"], 1, "MB"),
        ],
        plots=[
            Plot(
                "memory",
                "Highest resident memory of the proxy",
                "MB",
                {
                    name: {key: value for key, value in each.items() if key != "growth"}
                    for name, each in found.items()
                },
            )
        ],
        raw=dict(found),
    )


async def _at_rest(system: System) -> float:
    async with bed(1, Kind(slots=1), (system,)) as made:
        [running] = made.running
        assert running.pid
        return memory(running.pid).highest


async def _waiting(system: System, count: int) -> float:
    async with bed(1, Kind(slots=1), (system,)) as made:
        [running] = made.running
        assert running.pid
        await made.load.call("hold", port=running.ports[0], count=count + 1, size=_BODY, tokens=0)
        await asyncio.sleep(1)
        if system.counts_replicas:
            said = await get_json(running.place.metrics_port, "/autoscaling")
            if said["queued"] != count:
                raise RuntimeError(f"{said['queued']} requests wait instead of {count}")
        return memory(running.pid).highest


async def _streams(system: System, count: int) -> float:
    async with bed(8, Kind(slots=count // 8), (system,)) as made:
        [running] = made.running
        assert running.pid
        began = await made.load.call(
            "hold", port=running.ports[0], count=count, size=20, tokens=1000
        )
        if began != count:
            raise RuntimeError(f"{began} streams began instead of {count}")
        await asyncio.sleep(3)
        return memory(running.pid).highest


async def _growth(system: System, requests: int) -> float:
    async with bed(8, Kind(slots=8), (system,)) as made:
        [running] = made.running
        assert running.pid
        after = []
        for _ in range(2):
            await made.load.call(
                "closed", ports=running.ports, connections=32, seconds=120, most=requests
            )
            after.append(memory(running.pid).now)
        return after[1] - after[0]
