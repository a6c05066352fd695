"""Measures whether streams are delayed while large request bodies arrive."""

import asyncio
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import DIRECT, PROXIES
from bench.balancer.testbed import RunningSystem, testbed
from bench.balancer.worker import Worker
from bench.findings import Findings, Plot, Table, at_most, digits

_STREAMS = 100
_SIZE = 5_000_000
_PER_SECOND = 5.0
_PERCENTILES = ("p50", "p99", "p99.9", "max")


async def measure(scale: Scale) -> Findings:
    """Run 100 streams of 20 tokens a second; another process sends 5 bodies of 5 MB a second."""
    seconds = 3 * scale.length
    async with (
        testbed(8, ReplicaOptions(slots=64), (DIRECT, *PROXIES)) as bed,
        Worker(bed.load.module) as other,
    ):

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            streams = bed.load.call(
                "streams", ports=system.ports, concurrency=_STREAMS, seconds=seconds, seed=number
            )
            bodies = other.call(
                "bodies",
                port=system.ports[0],
                size=_SIZE,
                per_second=_PER_SECOND,
                seconds=seconds + 0.8,
            )
            measured, count = await asyncio.gather(streams, bodies)
            return {**measured, "bodies": count}

        samples = await interleave(bed.running, scale.rounds, sample)
    delays = {
        name: {each: median_of(results, "delay_ms", each) for each in _PERCENTILES}
        for name, results in samples.items()
    }
    return Findings(
        "bodies",
        tables=[
            Table(
                "Token delay while bodies of 5 MB arrive",
                ("system", "p50 ms", "p99", "p99.9", "max", "bodies"),
                [
                    (
                        name,
                        *(digits(delays[name][each]) for each in _PERCENTILES),
                        str(sum(sample["bodies"] for sample in results)),
                    )
                    for name, results in samples.items()
                ],
                f"{_STREAMS} streams, and {_PER_SECOND:.0f} bodies a second from a separate "
                "process. Four processes share two cores: the row `direct` shows the part of the "
                "delay that is the machine's.",
            )
        ],
        gates=[
            at_most("p99.9 token delay under 5 MB bodies", delays["slotkeeper"]["p99.9"], 10, "ms")
        ],
        plots=[
            Plot(
                "bodies",
                "Delay of a token while bodies of 5 MB arrive",
                "ms",
                {
                    name: {each: results[each] for each in ("p50", "p99", "p99.9")}
                    for name, results in delays.items()
                },
                log=True,
            )
        ],
        raw=dict(samples),
    )
