"""Measures the cost and the delay of a token with 500 concurrent streams."""

from statistics import median
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import column, median_difference, median_of, median_ratio
from bench.balancer.systems import DIRECT, PROXIES
from bench.balancer.testbed import RunningSystem, testbed
from bench.findings import Findings, Plot, Table, at_most, digits

_STREAMS = 500


async def measure(scale: Scale) -> Findings:
    """Run 500 streams of 20 tokens a second each, on 8 replicas with 64 slots."""
    async with testbed(8, ReplicaOptions(slots=64), (DIRECT, *PROXIES)) as bed:

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            measured: dict[str, Any] = await bed.load.call(
                "streams",
                ports=system.ports,
                concurrency=_STREAMS,
                seconds=2.5 * scale.length,
                seed=number,
                pid=system.pid,
            )
            return measured

        samples = await interleave(bed.running, scale.rounds, sample)
    cpu = {
        name: [sample["cpu_seconds"] / sample["tokens"] * 1e6 for sample in results]
        for name, results in samples.items()
        if name != "direct"
    }
    ours = cpu["slotkeeper"]
    return Findings(
        "streams",
        tables=[_table(samples, cpu)],
        gates=[
            at_most("CPU per token, × nginx", median_ratio(ours, cpu["nginx"]), 1.3),
            at_most("CPU per token, × HAProxy", median_ratio(ours, cpu["HAProxy"]), 1.0),
        ],
        plots=[
            Plot(
                "token_delay",
                f"Delay of a token, {_STREAMS} streams",
                "ms",
                {
                    name: {
                        each: median_of(results, "delay_ms", each) for each in ("p50", "p90", "p99")
                    }
                    for name, results in samples.items()
                },
            ),
            Plot(
                "token_cpu",
                f"CPU of the proxy for one token, {_STREAMS} streams",
                "µs",
                {name: {"token": median(values)} for name, values in cpu.items()},
            ),
        ],
        raw=dict(samples),
    )


def _table(samples: Samples, cpu: dict[str, list[float]]) -> Table:
    rows = []
    for name, results in samples.items():
        row = [name]
        for group in ("first_ms", "delay_ms"):
            for each in ("p50", "p99"):
                added = median_difference(
                    column(results, group, each), column(samples["direct"], group, each)
                )
                value = digits(median_of(results, group, each))
                row.append(value if name == "direct" else f"{value} ({added:+.2f})")
        if name in cpu:
            row += [
                digits(median(cpu[name])),
                digits(median_ratio(cpu[name], cpu["nginx"])),
                digits(median_ratio(cpu[name], cpu["HAProxy"])),
            ]
        else:
            row += ["–"] * 3
        rows.append(tuple(row))
    return Table(
        f"{_STREAMS} streams",
        (
            "system",
            "first token p50 ms",
            "p99",
            "token delay p50 ms",
            "p99",
            "CPU µs/token",
            "× nginx",
            "× HAProxy",
        ),
        rows,
        "The first token is measured from the sending of its request, every token from when the "
        "fake sent it. In parentheses: difference to direct, median over the rounds. CPU includes "
        "the requests that start the streams, one for every 20 tokens.",
    )
