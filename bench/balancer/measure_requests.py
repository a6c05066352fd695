"""Measures the cost of a request: the proxy's CPU at full load, latency on one connection."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import median_difference, median_ratio
from bench.balancer.systems import DIRECT, PROXIES, SLOTKEEPER_LOGGING
from bench.balancer.testbed import RunningSystem, Testbed, testbed
from bench.findings import Findings, Plot, Table, at_most, digits

_CONNECTIONS = 32


async def measure(scale: Scale) -> Findings:
    """Send requests that take no time on a slot, on 32 connections and then on one."""
    async with testbed(8, ReplicaOptions(slots=8), (DIRECT, *PROXIES, SLOTKEEPER_LOGGING)) as bed:
        proxies = [each for each in bed.running if each.pid]
        await _full_load(bed, proxies, 1, 0.2)
        cpu = await _full_load(bed, proxies, scale.rounds, 1.2 * scale.length)
        single = await _single_connection(bed, scale.rounds, 0.8 * scale.length)
    per_request = {
        name: [sample["cpu_seconds"] / sample["requests"] * 1e6 for sample in samples]
        for name, samples in cpu.items()
    }
    p50 = {
        name: [sample["latency_ms"]["p50"] for sample in samples]
        for name, samples in single.items()
    }
    added = median_ratio(p50["slotkeeper"], p50["direct"]) - 1
    return Findings(
        "requests",
        tables=[_table(per_request, p50)],
        gates=[at_most("added p50 latency on one connection, × direct", added, 2.5)],
        plots=[
            Plot(
                "request_cpu",
                "CPU of the proxy for one request",
                "µs",
                {name: {"request": median(values)} for name, values in per_request.items()},
            )
        ],
        raw={"full_load": cpu, "single_connection": single},
    )


async def _full_load(
    bed: Testbed, running: Sequence[RunningSystem], rounds: int, seconds: float
) -> Samples:
    async def sample(system: RunningSystem, _: int) -> dict[str, Any]:
        measured: dict[str, Any] = await bed.load.call(
            "closed_loop",
            ports=system.ports,
            connections=_CONNECTIONS,
            seconds=seconds,
            pid=system.pid,
        )
        return measured

    return await interleave(running, rounds, sample)


async def _single_connection(bed: Testbed, rounds: int, seconds: float) -> Samples:
    async def sample(system: RunningSystem, _: int) -> dict[str, Any]:
        measured: dict[str, Any] = await bed.load.call(
            "closed_loop", ports=system.ports[:1], connections=1, seconds=seconds
        )
        return measured

    return await interleave(bed.running, rounds, sample)


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
        "Cost of a request",
        ("system", "CPU µs", "× nginx", "p50 ms", "added ms", "added, × direct"),
        rows,
        f"CPU of the proxy with {_CONNECTIONS} connections in a closed loop; latency with one "
        "connection. Requests take no time on a slot. Differences and ratios are computed within "
        "each round; the table has their medians.",
    )
