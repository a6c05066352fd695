"""Whether streams stand still while large bodies arrive."""

import asyncio
from typing import Any

from bench.balancer.bed import Running, bed
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import DIRECT, PROXIES
from bench.balancer.worker import Worker
from bench.findings import Findings, Plot, Table, at_most, digits

_SEATS = 100
_SIZE = 5_000_000
_PER_SECOND = 5.0
_SHARES = ("p50", "p99", "p99.9", "max")


async def measure(scale: Scale) -> Findings:
    """100 streams of 20 tokens a second, and from another process 5 bodies of 5 MB a second."""
    seconds = 3 * scale.length
    async with (
        bed(8, Kind(slots=64), (DIRECT, *PROXIES)) as made,
        Worker(made.load.module) as other,
    ):

        async def piece(system: Running, number: int) -> dict[str, Any]:
            streams = made.load.call(
                "streams", ports=system.ports, seats=_SEATS, seconds=seconds, seed=number
            )
            sent = other.call(
                "bodies",
                port=system.ports[0],
                size=_SIZE,
                per_second=_PER_SECOND,
                seconds=seconds + 0.8,
            )
            found, bodies = await asyncio.gather(streams, sent)
            return {**found, "bodies": bodies}

        pieces = await interleave(made.running, scale.rounds, piece)
    delays = {
        name: {each: median_of(found, "delay_ms", each) for each in _SHARES}
        for name, found in pieces.items()
    }
    return Findings(
        "bodies",
        tables=[
            Table(
                "Token delay while bodies of 5 MB arrive",
                ("system", "p50 ms", "p99", "p99.9", "longest", "bodies"),
                [
                    (
                        name,
                        *(digits(delays[name][each]) for each in _SHARES),
                        str(sum(piece["bodies"] for piece in found)),
                    )
                    for name, found in pieces.items()
                ],
                f"{_SEATS} streams and {_PER_SECOND:.0f} bodies a second, from a process of their "
                "own. On two cores four processes are at work here: direct shows what of it is "
                "the machine's.",
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
                    name: {each: found[each] for each in ("p50", "p99", "p99.9")}
                    for name, found in delays.items()
                },
                log=True,
            )
        ],
        raw=dict(pieces),
    )
