"""Measures how often prompts hit a replica's prefix cache, and what misses cost."""

from dataclasses import asdict
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import HAPROXY, SLOTKEEPER
from bench.balancer.testbed import RunningSystem, testbed
from bench.balancer.workload import Workload
from bench.findings import Findings, Plot, Table, at_least, at_most, digits

_REPLICAS = 8
_SLOTS = 8
_LOADS = (0.8, 0.9, 0.95)
_MEAN_SERVICE = 0.05
_SECONDS = 3.0


async def measure(scale: Scale) -> Findings:
    """Use 200 sessions; a replica caches 40 prompts, and a miss costs half a mean service time."""
    options = ReplicaOptions(slots=_SLOTS, cache=40, miss_us=round(_MEAN_SERVICE / 2 * 1e6))
    by_load: dict[float, Samples] = {}
    async with testbed(_REPLICAS, options, (HAPROXY, SLOTKEEPER)) as bed:
        for load in _LOADS:

            async def sample(
                system: RunningSystem, number: int, load: float = load
            ) -> dict[str, Any]:
                await bed.fakes.call("reset")
                rate = load * _REPLICAS * _SLOTS / _MEAN_SERVICE
                workload = Workload(
                    seed=number,
                    count=round(rate * _SECONDS * max(scale.length, 0.3)),
                    slots=_REPLICAS * _SLOTS,
                    load=load,
                    mean_service=_MEAN_SERVICE,
                    sessions=200,
                )
                measured: dict[str, Any] = await bed.load.call(
                    "open_loop", ports=system.ports, pick=system.pick, workload=asdict(workload)
                )
                return measured

            by_load[load] = await interleave(bed.running, max(2, scale.rounds // 2), sample)
    hits = {load: _hits(samples, "slotkeeper") for load, samples in by_load.items()}
    return Findings(
        "prefix-cache",
        tables=[_table(by_load)],
        gates=[
            at_least("prefix cache hits at load 0.8", hits[0.8], 0.95),
            at_least("prefix cache hits at load 0.9", hits[0.9], 0.9),
            at_most("load with misses at 0.95", _load(by_load[0.95], "slotkeeper"), 1.0),
        ],
        plots=[
            Plot(
                "prefix_cache",
                "Share of requests with a prefix cache hit",
                "share",
                {
                    name: {str(load): _hits(samples, name) for load, samples in by_load.items()}
                    for name in ("HAProxy", "slotkeeper")
                },
            )
        ],
        raw={str(load): samples for load, samples in by_load.items()},
    )


def _hits(samples: Samples, name: str) -> float:
    return median_of(samples[name], "cache_hits")


def _load(samples: Samples, name: str) -> float:
    return median_of(samples[name], "steady_load")


def _table(by_load: dict[float, Samples]) -> Table:
    rows = []
    for load, samples in by_load.items():
        for name, results in samples.items():
            wait = median_of(results, "steady_wait_ms", "mean")
            rows.append(
                (
                    name,
                    str(load),
                    digits(_hits(samples, name)),
                    digits(_load(samples, name)),
                    digits(wait),
                )
            )
    return Table(
        "Prefix cache",
        ("system", "load without misses", "hit rate", "load with misses", "mean wait ms"),
        rows,
        "200 sessions with prompts of 4 kB; a replica caches 40 of them; a miss costs half a mean "
        "service time. The first quarter fills the caches and is not counted. At a load above 1 "
        "the queue grows until the end of the measurement.",
    )
