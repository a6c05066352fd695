"""Measures the delay of a token, and memory, with many concurrent streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import column, median_difference, median_of
from bench.balancer.systems import System
from bench.balancer.testbed import RunningSystem
from bench.findings import Findings, Gate, Plot, Table, at_most, digits
from bench.gateway.systems import GATEWAY, LITELLM, PORTKEY
from bench.gateway.testbed import BALANCER, testbed
from bench.processes import memory

_MANY = 2000
_FEW = 10
"""What the other gateways forward without falling behind."""
_INTERVALS_US = {_MANY: 500_000, _FEW: 200_000}
"""Between the tokens of a stream: together 4,000 and 50 tokens a second."""


@dataclass(frozen=True, slots=True)
class _Measured:
    samples: Samples
    memory: dict[str, float]
    """Peak resident memory in MB."""


async def measure(scale: Scale) -> Findings:
    """Run 2,000 streams with 2 tokens a second each, and 10 faster ones for all gateways."""
    small = scale.length < 1
    count, few_count = (_MANY // 10, _FEW // 2) if small else (_MANY, _FEW)
    many = await _measure(scale, count, _INTERVALS_US[_MANY], (GATEWAY,))
    few = await _measure(scale, few_count, _INTERVALS_US[_FEW], (GATEWAY, LITELLM, PORTKEY))
    results = many.samples[GATEWAY.name]
    failed = sum(sample["failed"] for sample in results)
    streams = sum(sample["streams"] for sample in results)
    memory_mb = many.memory[GATEWAY.name]
    return Findings(
        "streams",
        tables=[
            _table(many, count, _INTERVALS_US[_MANY]),
            _table(few, few_count, _INTERVALS_US[_FEW]),
        ],
        gates=[
            Gate(f"failed streams, {count} at a time", "0", f"{failed} of {streams}", failed == 0),
            at_most(f"memory of the gateway, {count} streams", memory_mb, 200, "MB"),
        ],
        plots=[
            Plot(
                "gateway_streams",
                f"Delay of a token, {few_count} streams",
                "ms",
                {
                    name: {each: median_of(samples, "delay_ms", each) for each in ("p50", "p99")}
                    for name, samples in few.samples.items()
                    if all(sample["delay_ms"] for sample in samples)
                },
                log=True,
            )
        ],
        raw={str(count): many.samples, str(few_count): few.samples},
    )


async def _measure(
    scale: Scale, count: int, interval_us: int, gateways: Sequence[System]
) -> _Measured:
    async with testbed(8, ReplicaOptions(slots=256), gateways) as bed:

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            measured: dict[str, Any] = await bed.load.call(
                "streams",
                ports=system.ports,
                concurrency=count,
                seconds=interval_us * 16e-6 * scale.length,
                seed=number,
                interval_us=round(interval_us * scale.length),
                pid=system.pid,
                headers=system.headers,
            )
            return measured

        samples = await interleave(bed.running, max(1, scale.rounds // 2), sample)
        highest = {each.name: memory(each.pid).highest for each in bed.running if each.pid}
    return _Measured(samples, highest)


def _table(measured: _Measured, count: int, interval_us: int) -> Table:
    rows = []
    for name, samples in measured.samples.items():
        row = [name]
        for group, percentile in (("first_ms", "p50"), ("delay_ms", "p50"), ("delay_ms", "p99")):
            if not all(sample[group] for sample in samples):
                # It has fallen so far behind that no stream began while it was measured.
                row.append("–")
                continue
            row.append(digits(median_of(samples, group, percentile)))
            if name not in {"direct", BALANCER}:
                base = column(measured.samples[BALANCER], group, percentile)
                added = median_difference(column(samples, group, percentile), base)
                row[-1] += f" ({'+' if added >= 0 else ''}{digits(added)})"
        row += [str(sum(sample[key] for sample in samples)) for key in ("streams", "failed")]
        row.append(digits(measured.memory[name]) if name in measured.memory else "–")
        rows.append(tuple(row))
    return Table(
        f"{count} streams",
        (
            "system",
            "first token p50 ms",
            "token delay p50 ms",
            "p99 ms",
            "streams",
            "failed",
            "memory MB",
        ),
        rows,
        f"{count} concurrent streams of 10 to 30 tokens, with {1e6 / interval_us:g} tokens a second"
        " each. The first token is measured from the sending of its request, every token from when "
        "the fake sent it. In parentheses: difference to the balancer alone, median over the "
        "rounds. Peak memory of the process; the balancer's includes the streams that come through "
        "gateways.",
    )
