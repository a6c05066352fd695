"""How soon a slot is used again after an abort, and a replica after it is ready."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.balancer.bed import Bed, Running, bed, get_json, start
from bench.balancer.fake_cluster import fake_cluster
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Pieces, Scale, interleave
from bench.balancer.stats import median_of, summary
from bench.balancer.systems import PROXIES, SLOTKEEPER, SLOTKEEPER_FOLLOWING
from bench.findings import Findings, Plot, Table, at_most, digits

_STEP_MS = 10


async def measure(scale: Scale) -> Findings:
    """Aborts through each proxy; new replicas through ours, which is the only one that follows."""
    aborted = await _aborts(scale)
    by_slice = await _new_by_slice(max(3, round(20 * scale.length)))
    by_health = await _new_by_health(max(2, round(8 * scale.length)))
    ours = aborted["slotkeeper"]
    return Findings(
        "changes",
        tables=[_abort_table(aborted), _new_table(by_slice, by_health)],
        gates=[
            at_most("abort to the slot's next use, p50", median_of(ours, "used", "p50"), 50, "ms"),
            at_most("abort to the slot's next use, p99", median_of(ours, "used", "p99"), 50, "ms"),
            at_most("ready to a new replica's first use, longest", max(by_slice), 50, "ms"),
        ],
        plots=[
            Plot(
                "abort",
                "From a client's leaving to the next request on its slot",
                "ms",
                {
                    name: {each: median_of(found, "used", each) for each in ("p50", "p99")}
                    for name, found in aborted.items()
                },
            )
        ],
        raw={"aborts": aborted, "new_by_slice_ms": by_slice, "new_by_health_ms": by_health},
    )


async def _aborts(scale: Scale) -> Pieces:
    async with bed(1, Kind(slots=1, step_us=_STEP_MS * 1000), PROXIES) as made:

        async def piece(system: Running, number: int) -> dict[str, Any]:
            await made.fakes.call("reset")
            times = await made.load.call(
                "aborts", port=system.ports[0], count=max(3, round(20 * scale.length)), seed=number
            )
            stats = await made.fakes.call("stats")
            used = [began - left for left, began in times]
            let_go = [freed - left for (left, _), freed in zip(times, stats["let_go"], strict=True)]
            return {
                "used": summary(used, 1e-6),
                "let_go": summary(let_go, 1e-6),
                "aborts": len(times),
                "over_commits": stats["over_commits"],
            }

        return await interleave(made.running, scale.rounds, piece)


async def _new_by_slice(count: int) -> list[float]:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(bed(2, Kind(slots=1), ()))
        first = made.replicas[:1]
        cluster = await stack.enter_async_context(fake_cluster(first))
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        config = Path(folder) / "kubeconfig"
        config.write_text(cluster.kubeconfig)
        balancer = await stack.enter_async_context(
            start(SLOTKEEPER_FOLLOWING, first, 1, environment={"KUBECONFIG": str(config)})
        )
        await _take_the_slot(made, balancer)
        took = []
        for _ in range(count):
            waiting = await _one_waits(made, balancer)
            ready = time.monotonic_ns()
            cluster.change(made.replicas)
            took.append(((await waiting)["start"] - ready) / 1e6)
            cluster.change(first)
            await _until(balancer, lambda said: said["replicas"] == 1)
        return took


async def _new_by_health(count: int) -> list[float]:
    took = []
    for number in range(count):
        async with bed(2, Kind(slots=1), ()) as made:
            await made.fakes.call("loading", replica=1, flag=True)
            async with start(SLOTKEEPER, made.replicas, 1, joined=1) as balancer:
                await _take_the_slot(made, balancer)
                waiting = await _one_waits(made, balancer)
                # It is asked less and less often: readiness comes at another moment each time.
                await asyncio.sleep(1 + 0.13 * number)
                ready = time.monotonic_ns()
                await made.fakes.call("loading", replica=1, flag=False)
                took.append(((await waiting)["start"] - ready) / 1e6)
    return took


async def _take_the_slot(made: Bed, balancer: Running) -> None:
    await made.load.call("hold", port=balancer.ports[0], count=1, size=20, tokens=0)
    await _until(balancer, lambda said: said["slots"]["busy"] == 1)


async def _one_waits(made: Bed, balancer: Running) -> asyncio.Task[dict[str, int]]:
    waiting = asyncio.create_task(made.load.call("ask", port=balancer.ports[0]))
    await _until(balancer, lambda said: said["queued"] == 1)
    return waiting


async def _until(balancer: Running, holds: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds(await get_json(balancer.place.metrics_port, "/autoscaling")):  # noqa: ASYNC110 (another process' state)
            await asyncio.sleep(0.01)


def _abort_table(pieces: Pieces) -> Table:
    return Table(
        "After an abort",
        ("system", "next use p50 ms", "p99", "the fake's own p50", "beyond the slots"),
        [
            (
                name,
                digits(median_of(found, "used", "p50")),
                digits(median_of(found, "used", "p99")),
                digits(median_of(found, "let_go", "p50")),
                f"{sum(p['over_commits'] for p in found)} of {sum(p['aborts'] for p in found)}",
            )
            for name, found in pieces.items()
        ],
        "One slot, one stream on it, one request that waits; the stream's client leaves. The fake "
        f"lets go at the end of its decode step of {_STEP_MS} ms. A proxy that sends the next "
        "request before that has it wait in the replica, beyond its slots.",
    )


def _new_table(by_slice: list[float], by_health: list[float]) -> Table:
    rows = []
    for name, took in (("EndpointSlices", by_slice), ("a fixed list, /health", by_health)):
        found = summary(took)
        rows.append((name, *(digits(found[each]) for each in ("p50", "max")), str(len(took))))
    return Table(
        "A new replica",
        ("slotkeeper learns of it from", "first use p50 ms", "longest", "times"),
        rows,
        "From when it is ready (the EndpointSlice says so, or /health answers 200) to the start of "
        "a request that waited for it. A replica of a fixed list that is loading is asked less and "
        "less often, once a second in the end.",
    )
