"""What a token costs, and how late it comes, with 500 streams at a time."""

from statistics import median
from typing import Any

from bench.balancer.bed import Running, bed
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Pieces, Scale, interleave
from bench.balancer.stats import column, median_difference, median_of, median_ratio
from bench.balancer.systems import DIRECT, PROXIES
from bench.findings import Findings, Plot, Table, at_most, digits

_SEATS = 500


async def measure(scale: Scale) -> Findings:
    """500 streams of 20 tokens a second each, on 8 replicas with 64 slots."""
    async with bed(8, Kind(slots=64), (DIRECT, *PROXIES)) as made:

        async def piece(system: Running, number: int) -> dict[str, Any]:
            found: dict[str, Any] = await made.load.call(
                "streams",
                ports=system.ports,
                seats=_SEATS,
                seconds=2.5 * scale.length,
                seed=number,
                pid=system.pid,
            )
            return found

        pieces = await interleave(made.running, scale.rounds, piece)
    cpu = {
        name: [piece["cpu_seconds"] / piece["tokens"] * 1e6 for piece in found]
        for name, found in pieces.items()
        if name != "direct"
    }
    ours = cpu["slotkeeper"]
    return Findings(
        "streams",
        tables=[_table(pieces, cpu)],
        gates=[
            at_most("CPU a token, times nginx", median_ratio(ours, cpu["nginx"]), 1.3),
            at_most("CPU a token, times HAProxy", median_ratio(ours, cpu["HAProxy"]), 1.0),
        ],
        plots=[
            Plot(
                "token_delay",
                f"Delay of a token, {_SEATS} streams",
                "ms",
                {
                    name: {
                        each: median_of(found, "delay_ms", each) for each in ("p50", "p90", "p99")
                    }
                    for name, found in pieces.items()
                },
            ),
            Plot(
                "token_cpu",
                f"CPU of the proxy for one token, {_SEATS} streams",
                "µs",
                {name: {"token": median(values)} for name, values in cpu.items()},
            ),
        ],
        raw=dict(pieces),
    )


def _table(pieces: Pieces, cpu: dict[str, list[float]]) -> Table:
    rows = []
    for name, found in pieces.items():
        row = [name]
        for group in ("first_ms", "delay_ms"):
            for each in ("p50", "p99"):
                added = median_difference(
                    column(found, group, each), column(pieces["direct"], group, each)
                )
                shown = digits(median_of(found, group, each))
                row.append(shown if name == "direct" else f"{shown} ({added:+.2f})")
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
        f"{_SEATS} streams",
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
        "A first token is timed from its request, each token from when the fake sent it. In "
        "brackets: beside direct, the median within rounds. CPU includes the requests that begin "
        "the streams, one for every 20 tokens.",
    )
