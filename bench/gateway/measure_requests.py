"""Measures the cost of a request: latency on one connection, and the gateway's CPU."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import column, median_difference, median_ratio
from bench.balancer.testbed import RunningSystem, Testbed
from bench.findings import Findings, Plot, Table, at_most, digits
from bench.gateway.systems import GATEWAY, GATEWAY_LOGGING, LITELLM, PORTKEY
from bench.gateway.testbed import BALANCER, testbed

_CONNECTIONS = 32


async def measure(scale: Scale) -> Findings:
    """Send requests that take no time on a slot, on one connection and then on 32."""
    async with testbed(
        8, ReplicaOptions(slots=8), (GATEWAY, GATEWAY_LOGGING, LITELLM, PORTKEY)
    ) as bed:
        await _closed_loop(bed, bed.running, 1, 1, 0.3)
        single = await _closed_loop(bed, bed.running, scale.rounds, 1, 0.8 * scale.length)
        proxies = [each for each in bed.running if each.pid]
        full = await _closed_loop(bed, proxies, scale.rounds, _CONNECTIONS, 1.2 * scale.length)
    cpu = {
        name: [sample["cpu_seconds"] / max(1, sample["requests"]) * 1e6 for sample in samples]
        for name, samples in full.items()
    }
    added = {percentile: _added(single, percentile)[GATEWAY.name] for percentile in ("p50", "p99")}
    total = median_ratio(
        column(single[GATEWAY.name], "latency_ms", "p50"),
        column(single[BALANCER], "latency_ms", "p50"),
    )
    return Findings(
        "requests",
        tables=[_table(single, full, cpu)],
        gates=[
            at_most("p50 that the gateway adds, × p50 that the balancer adds", added["p50"], 1.3),
            at_most("p50 through gateway and balancer, × the balancer alone", total, 1.3),
        ],
        plots=[
            Plot(
                "gateway_request_cpu",
                "CPU of the proxy for one request",
                "µs",
                {name: {"request": median(values)} for name, values in cpu.items()},
                log=True,
            )
        ],
        raw={"single_connection": single, "full_load": full},
    )


async def _closed_loop(
    bed: Testbed, running: Sequence[RunningSystem], rounds: int, connections: int, seconds: float
) -> Samples:
    async def sample(system: RunningSystem, _: int) -> dict[str, Any]:
        measured: dict[str, Any] = await bed.load.call(
            "closed_loop",
            ports=system.ports[:connections],
            connections=connections,
            seconds=seconds,
            pid=system.pid,
            headers=system.headers,
        )
        if measured["failed"]:
            raise RuntimeError(f"{system.name}: {measured['failed']} requests failed")
        return measured

    return await interleave(running, rounds, sample)


def _added(single: Samples, percentile: str) -> dict[str, float]:
    """Return what each gateway adds to the balancer, relative to what that adds to `direct`."""
    values = {name: column(samples, "latency_ms", percentile) for name, samples in single.items()}
    rounds = list(zip(values["direct"], values[BALANCER], strict=True))
    return {
        name: median(
            (value - balancer) / (balancer - direct)
            for value, (direct, balancer) in zip(each, rounds, strict=True)
        )
        for name, each in values.items()
        if name not in {"direct", BALANCER}
    }


def _table(single: Samples, full: Samples, cpu: dict[str, list[float]]) -> Table:
    relative = _added(single, "p50")
    rows = []
    for name, samples in single.items():
        row = [name]
        for percentile in ("p50", "p99"):
            values = column(samples, "latency_ms", percentile)
            base = column(single[BALANCER], "latency_ms", percentile)
            row.append(digits(median(values)))
            row.append(digits(median_difference(values, base)) if name in relative else "–")
        row.append(digits(relative[name]) if name in relative else "–")
        if name in cpu:
            per_second = [sample["requests"] / sample["seconds"] for sample in full[name]]
            row += [
                digits(median(per_second)),
                digits(median(cpu[name])),
                digits(median_ratio(cpu[name], cpu[GATEWAY.name])),
            ]
        else:
            row += ["–"] * 3
        rows.append(tuple(row))
    return Table(
        "Cost of a request",
        (
            "system",
            "p50 ms",
            "added",
            "p99 ms",
            "added",
            "p50 added, × the balancer's",
            "requests/s",
            "CPU µs",
            "× gateway",
        ),
        rows,
        "Latency with one connection; requests per second and CPU of the process with "
        f"{_CONNECTIONS} connections in a closed loop. All gateways forward to the same balancer, "
        "and requests take no time on a slot. `added`: to the balancer alone. Differences and "
        "ratios are computed within each round; the table has their medians.",
    )
