"""What a request costs: CPU of the proxy at full speed, latency on one connection."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.balancer.bed import Bed, Running, bed
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Pieces, Scale, interleave
from bench.balancer.stats import median_difference, median_ratio
from bench.balancer.systems import DIRECT, PROXIES, SLOTKEEPER_LOGGING
from bench.findings import Findings, Plot, Table, at_most, digits

_CONNECTIONS = 32


async def measure(scale: Scale) -> Findings:
    """Requests that need no time on a slot: 32 connections, then one."""
    async with bed(8, Kind(slots=8), (DIRECT, *PROXIES, SLOTKEEPER_LOGGING)) as made:
        proxies = [each for each in made.running if each.pid]
        await _busy(made, proxies, 1, 0.2)
        cpu = await _busy(made, proxies, scale.rounds, 1.2 * scale.length)
        alone = await _alone(made, scale.rounds, 0.8 * scale.length)
    per_request = {
        name: [piece["cpu_seconds"] / piece["requests"] * 1e6 for piece in pieces]
        for name, pieces in cpu.items()
    }
    p50 = {name: [piece["latency_ms"]["p50"] for piece in pieces] for name, pieces in alone.items()}
    added = median_ratio(p50["slotkeeper"], p50["direct"]) - 1
    return Findings(
        "requests",
        tables=[_table(per_request, p50)],
        gates=[at_most("added p50 on one connection, times direct", added, 2.5)],
        plots=[
            Plot(
                "request_cpu",
                "CPU of the proxy for one request",
                "µs",
                {name: {"request": median(values)} for name, values in per_request.items()},
            )
        ],
        raw={"busy": cpu, "alone": alone},
    )


async def _busy(made: Bed, running: Sequence[Running], rounds: int, seconds: float) -> Pieces:
    async def piece(system: Running, _: int) -> dict[str, Any]:
        found: dict[str, Any] = await made.load.call(
            "closed",
            ports=system.ports,
            connections=_CONNECTIONS,
            seconds=seconds,
            pid=system.pid,
        )
        return found

    return await interleave(running, rounds, piece)


async def _alone(made: Bed, rounds: int, seconds: float) -> Pieces:
    async def piece(system: Running, _: int) -> dict[str, Any]:
        found: dict[str, Any] = await made.load.call(
            "closed", ports=system.ports[:1], connections=1, seconds=seconds
        )
        return found

    return await interleave(made.running, rounds, piece)


def _table(cpu: dict[str, list[float]], p50: dict[str, list[float]]) -> Table:
    rows = []
    for name, latencies in p50.items():
        row = [name]
        if name in cpu:
            row += [digits(median(cpu[name])), digits(median_ratio(cpu[name], cpu["nginx"]))]
        else:
            row += ["–", "–"]
        row += [
            digits(median(latencies)),
            digits(median_difference(latencies, p50["direct"])),
            digits(median_ratio(latencies, p50["direct"]) - 1),
        ]
        rows.append(tuple(row))
    return Table(
        "A request",
        ("system", "CPU µs", "× nginx", "p50 ms", "added ms", "added, × direct"),
        rows,
        f"CPU of the proxy at {_CONNECTIONS} connections that ask again at once; latency on one "
        "connection. Requests need no time on a slot. Added and ratios are medians of those "
        "within each round.",
    )
