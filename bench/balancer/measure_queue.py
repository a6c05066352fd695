"""Measures queueing time at a load of 0.9, compared with an ideal queue on the same workload."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import HAPROXY, NGINX, RANDOM, ROUND_ROBIN, SLOTKEEPER
from bench.balancer.testbed import RunningSystem, testbed
from bench.balancer.workload import Workload
from bench.findings import Findings, Gate, Plot, Table, at_most, digits

_REPLICAS = 8
_SLOTS = 8
_LOAD = 0.9
_MEAN_SERVICE = 0.05
_COUNT = 4000


async def measure(scale: Scale) -> Findings:
    """Use 8 replicas with 8 slots; each round has its own workload, the same for all systems."""
    systems = (RANDOM, ROUND_ROBIN, NGINX, HAPROXY, SLOTKEEPER)
    async with testbed(_REPLICAS, ReplicaOptions(slots=_SLOTS), systems) as bed:

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            await bed.fakes.call("reset")
            workload = Workload(
                seed=number,
                count=round(_COUNT * scale.length),
                slots=_REPLICAS * _SLOTS,
                load=_LOAD,
                mean_service=_MEAN_SERVICE,
            )
            measured: dict[str, Any] = await bed.load.call(
                "open_loop", ports=system.ports, pick=system.pick, workload=asdict(workload)
            )
            stats = await bed.fakes.call("stats")
            return {**measured, "overcommitted": stats["overcommitted"]}

        for system in bed.running:
            # Opens its connections to the replicas before anything is measured.
            await bed.load.call("closed_loop", ports=system.ports, connections=64, seconds=0.2)
        samples = await interleave(bed.running, scale.rounds, sample)
    ours = samples["slotkeeper"]
    return Findings(
        "queue",
        tables=[_table(samples)],
        gates=[
            _none("overcommitted requests", ours, "overcommitted"),
            _none("bypassed requests", ours, "bypassed"),
            _none("failed requests", ours, "failed"),
            at_most(f"mean wait above the ideal at load {_LOAD}", median(_excess(ours)), 5, "ms"),
        ],
        plots=[
            Plot(
                "queue_wait",
                f"Queueing time at load {_LOAD}, {_REPLICAS}×{_SLOTS} slots",
                "ms",
                {
                    "ideal": _waits(ours, "ideal_ms"),
                    **{name: _waits(results, "wait_ms") for name, results in samples.items()},
                },
                log=True,
            )
        ],
        raw=dict(samples),
    )


def _none(name: str, samples: Sequence[dict[str, Any]], field: str) -> Gate:
    count = sum(sample[field] for sample in samples)
    total = sum(sample["requests"] for sample in samples)
    return Gate(name, "0", f"{count} of {total}", count == 0)


def _excess(samples: Sequence[dict[str, Any]]) -> list[float]:
    return [sample["wait_ms"]["mean"] - sample["ideal_ms"]["mean"] for sample in samples]


def _waits(samples: Sequence[dict[str, Any]], group: str) -> dict[str, float]:
    return {name: median_of(samples, group, name) for name in ("mean", "p99")}


def _table(samples: Samples) -> Table:
    rows = []
    for name, results in samples.items():
        waits = _waits(results, "wait_ms")
        ideal = _waits(results, "ideal_ms")
        requests = sum(sample["requests"] for sample in results)
        overcommitted = sum(sample["overcommitted"] for sample in results)
        rows.append(
            (
                name,
                digits(waits["mean"]),
                digits(ideal["mean"]),
                f"{median(_excess(results)):+.2f}",
                digits(waits["p99"]),
                digits(ideal["p99"]),
                f"{overcommitted} ({overcommitted / requests:.1%})",
                str(sum(sample["bypassed"] for sample in results)),
                str(sum(sample["failed"] for sample in results)),
                digits(median_of(results, "load")),
            )
        )
    return Table(
        f"Queueing time at load {_LOAD}",
        (
            "system",
            "mean ms",
            "ideal",
            "difference",
            "p99 ms",
            "ideal",
            "overcommitted",
            "bypassed",
            "failed",
            "actual load",
        ),
        rows,
        f"{_REPLICAS} replicas with {_SLOTS} slots, Poisson arrivals, lognormal service times "
        f"(mean {_MEAN_SERVICE * 1000:.0f} ms, squared coefficient of variation 8). Queueing time: "
        "from sending a request to its start on a slot. Ideal: one FIFO queue for all slots, "
        "computed from the same workload as it was executed. Overcommitted: sent to a replica "
        "without a free slot. Bypassed: a later request started first. Random and round robin "
        "choose a replica for each request, which is better than a Kubernetes Service with "
        "persistent connections.",
    )
