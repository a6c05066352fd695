"""Measures how soon a slot is reused after an abort, and a new replica after it is ready."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.balancer.fake_cluster import fake_cluster
from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Samples, Scale, interleave
from bench.balancer.stats import median_of, summary
from bench.balancer.systems import PROXIES, SLOTKEEPER, SLOTKEEPER_WATCHING
from bench.balancer.testbed import RunningSystem, Testbed, get_json, start, testbed
from bench.findings import Findings, Plot, Table, at_most, digits

_STEP_MS = 10


async def measure(scale: Scale) -> Findings:
    """Measure aborts with each proxy, and new replicas with ours, which alone discovers them."""
    aborted = await _measure_aborts(scale)
    by_slice = await _measure_new_in_slice(max(3, round(20 * scale.length)))
    by_health = await _measure_new_in_list(max(2, round(8 * scale.length)))
    ours = aborted["slotkeeper"]
    return Findings(
        "changes",
        tables=[_abort_table(aborted), _new_table(by_slice, by_health)],
        gates=[
            at_most("abort to next request, p50", median_of(ours, "reused", "p50"), 50, "ms"),
            at_most("abort to next request, p99", median_of(ours, "reused", "p99"), 50, "ms"),
            at_most("new replica ready to first request, max", max(by_slice), 50, "ms"),
        ],
        plots=[
            Plot(
                "abort",
                "From a client disconnect to the next request on its slot",
                "ms",
                {
                    name: {each: median_of(results, "reused", each) for each in ("p50", "p99")}
                    for name, results in aborted.items()
                },
            )
        ],
        raw={"aborts": aborted, "new_by_slice_ms": by_slice, "new_by_health_ms": by_health},
    )


async def _measure_aborts(scale: Scale) -> Samples:
    async with testbed(1, ReplicaOptions(slots=1, step_us=_STEP_MS * 1000), PROXIES) as bed:

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            await bed.fakes.call("reset")
            times = await bed.load.call(
                "aborts", port=system.ports[0], count=max(3, round(20 * scale.length)), seed=number
            )
            stats = await bed.fakes.call("stats")
            reused = [next_start - disconnect for disconnect, next_start in times]
            released = [
                release - disconnect
                for (disconnect, _), release in zip(times, stats["released"], strict=True)
            ]
            return {
                "reused": summary(reused, 1e-6),
                "released": summary(released, 1e-6),
                "aborts": len(times),
                "overcommitted": stats["overcommitted"],
            }

        return await interleave(bed.running, scale.rounds, sample)


async def _measure_new_in_slice(count: int) -> list[float]:
    async with AsyncExitStack() as stack:
        bed = await stack.enter_async_context(testbed(2, ReplicaOptions(slots=1), ()))
        first = bed.replicas[:1]
        cluster = await stack.enter_async_context(fake_cluster(first))
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        config = Path(folder) / "kubeconfig"
        config.write_text(cluster.kubeconfig)
        balancer = await stack.enter_async_context(
            start(SLOTKEEPER_WATCHING, first, 1, environment={"KUBECONFIG": str(config)})
        )
        await _occupy_slot(bed, balancer)
        delays = []
        for _ in range(count):
            queued = await _queue_request(bed, balancer)
            ready = time.monotonic_ns()
            cluster.change(bed.replicas)
            delays.append(((await queued)["start"] - ready) / 1e6)
            cluster.change(first)
            await _wait_until(balancer, lambda demand: demand["replicas"] == 1)
        return delays


async def _measure_new_in_list(count: int) -> list[float]:
    delays = []
    for number in range(count):
        async with testbed(2, ReplicaOptions(slots=1), ()) as bed:
            await bed.fakes.call("loading", replica=1, flag=True)
            async with start(SLOTKEEPER, bed.replicas, 1, joined=1) as balancer:
                await _occupy_slot(bed, balancer)
                queued = await _queue_request(bed, balancer)
                # Health checks back off: each round becomes ready at another time between two.
                await asyncio.sleep(1 + 0.13 * number)
                ready = time.monotonic_ns()
                await bed.fakes.call("loading", replica=1, flag=False)
                delays.append(((await queued)["start"] - ready) / 1e6)
    return delays


async def _occupy_slot(bed: Testbed, balancer: RunningSystem) -> None:
    await bed.load.call("hold", port=balancer.ports[0], count=1, size=20, tokens=0)
    await _wait_until(balancer, lambda demand: demand["slots"]["busy"] == 1)


async def _queue_request(bed: Testbed, balancer: RunningSystem) -> asyncio.Task[dict[str, int]]:
    queued = asyncio.create_task(bed.load.call("send_one", port=balancer.ports[0]))
    await _wait_until(balancer, lambda demand: demand["queued"] == 1)
    return queued


async def _wait_until(balancer: RunningSystem, holds: Callable[[dict[str, Any]], bool]) -> None:
    port = balancer.setup.metrics_port
    async with asyncio.timeout(10):
        while not holds(await get_json(port, "/autoscaling")):  # noqa: ASYNC110 (another process' state)
            await asyncio.sleep(0.01)


def _abort_table(samples: Samples) -> Table:
    return Table(
        "Slot reuse after an abort",
        ("system", "next request p50 ms", "p99", "slot released p50 ms", "overcommitted"),
        [
            (
                name,
                digits(median_of(results, "reused", "p50")),
                digits(median_of(results, "reused", "p99")),
                digits(median_of(results, "released", "p50")),
                f"{_total(results, 'overcommitted')} of {_total(results, 'aborts')}",
            )
            for name, results in samples.items()
        ],
        "One slot with a stream, and one queued request; the stream's client disconnects. The fake "
        f"releases the slot at the end of its decode step of {_STEP_MS} ms. If a proxy sends the "
        "next request earlier, the replica has to defer it: it is overcommitted.",
    )


def _total(results: Sequence[dict[str, Any]], field: str) -> int:
    return sum(sample[field] for sample in results)


def _new_table(by_slice: list[float], by_health: list[float]) -> Table:
    rows = []
    for name, delays in (("EndpointSlices", by_slice), ("fixed list, /health", by_health)):
        statistics = summary(delays)
        rows.append(
            (name, *(digits(statistics[each]) for each in ("p50", "max")), str(len(delays)))
        )
    return Table(
        "First request on a new replica",
        ("slotkeeper discovers it by", "delay p50 ms", "max", "samples"),
        rows,
        "From readiness (in the EndpointSlice, or /health with status 200) to the start of a "
        "queued request. While a replica of a fixed list loads, it is polled with back-off, "
        "finally once a second.",
    )
