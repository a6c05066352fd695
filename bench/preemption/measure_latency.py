"""Measures interactive requests while preemptible streams occupy the other slots."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from statistics import median, quantiles
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.jobs import Job, request
from bench.balancer.rounds import Scale, interleave
from bench.balancer.systems import SLOTKEEPER, ProxySetup, System
from bench.balancer.testbed import RunningSystem, testbed
from bench.findings import Findings, Table, at_most, digits

_SLOTS = 8
_STEP_US = 30_000
"""A decode step, after which llama-server releases an aborted request's slot."""
_CLIENTS = 16
"""Of the batch: twice the slots."""
_BATCH = Job(tokens=200, interval_us=_STEP_US)
_INTERACTIVE = Job(service_us=50_000)
_COUNT = 300
_MEAN_PAUSE = 0.1
_RETRY_SECONDS = 0.1
_RESERVED = (0, 1)


async def measure(scale: Scale) -> Findings:
    """Use one replica with 8 slots, and balancers that keep 0 and 1 slots free."""
    systems = [_balancer(reserved) for reserved in _RESERVED]
    options = ReplicaOptions(slots=_SLOTS, step_us=_STEP_US)
    async with testbed(1, options, systems) as bed:

        async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
            await bed.fakes.call("reset")
            count = round(_COUNT * scale.length)
            alone = await _interactive(system.ports[0], count, number)
            async with _batch(system.ports[0]) as finished:
                beside = await _interactive(system.ports[0], count, number)
            stats = await bed.fakes.call("stats")
            return {
                "alone": alone,
                "beside": beside,
                "batch": len(finished),
                "overcommitted": stats["overcommitted"],
            }

        samples = await interleave(bed.running, scale.rounds, sample)
    rows = []
    for name, each in samples.items():
        for case in ("alone", "beside"):
            latencies = [sample[case] for sample in each]
            rows.append(
                (
                    name,
                    "without a batch" if case == "alone" else "beside a batch",
                    *(f"{digits(_percentile(latencies, share))} ms" for share in (50, 90, 99)),
                    "–" if case == "alone" else digits(median(s["batch"] for s in each)),
                )
            )
    ours = samples[systems[-1].name]
    ratio = _percentile([s["beside"] for s in ours], 99) / _percentile(
        [s["alone"] for s in ours], 99
    )
    overcommitted = max(s["overcommitted"] for each in samples.values() for s in each)
    return Findings(
        "latency",
        tables=[
            Table(
                f"Interactive requests of 50 ms, {_SLOTS} slots",
                ("balancer", "case", "p50", "p90", "p99", "requests of the batch"),
                rows,
                "The batch consists of streams with a token each 30 ms. Only complete ones count.",
            )
        ],
        gates=[
            at_most("p99 beside a batch relative to none", ratio, 1.3),
            at_most("overcommitted requests", overcommitted, 0),
        ],
        raw=samples,
    )


def _balancer(reserved: int) -> System:
    command = SLOTKEEPER.command
    assert command

    def with_reserved(setup: ProxySetup) -> list[str]:
        return [*command(setup), "--reserved-slots", str(reserved)]

    return replace(SLOTKEEPER, name=f"reserved slots: {reserved}", command=with_reserved)


async def _interactive(port: int, count: int, seed: int) -> list[float]:
    """Send requests one after the other; return their latencies in seconds."""
    rng = random.Random(seed)
    latencies = []
    for _ in range(count):
        await asyncio.sleep(rng.expovariate(1 / _MEAN_PAUSE))
        began = time.monotonic()
        status = await _send(port, request(_INTERACTIVE))
        if status != 200:
            raise RuntimeError(f"an interactive request got status {status}")
        latencies.append(time.monotonic() - began)
    return latencies


@asynccontextmanager
async def _batch(port: int) -> AsyncIterator[list[int]]:
    """Send preemptible streams all the time; yields the statuses of the complete ones."""
    finished: list[int] = []
    preemptible = request(_BATCH, b'{"stream": true}', ["X-Preemptible: true"])

    async def repeat() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                if await _send(port, preemptible) == 200:
                    finished.append(200)
                    continue
            await asyncio.sleep(_RETRY_SECONDS)

    tasks = [asyncio.create_task(repeat()) for _ in range(_CLIENTS)]
    await asyncio.sleep(1)  # until all slots are busy
    finished.clear()
    try:
        yield finished
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1)  # until all slots are released


async def _send(port: int, data: bytes) -> int:
    """Send a request over a new connection, read its response, and return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head.lower():
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            lower = head.lower()
            length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
        return int(head.split(b" ", 2)[1])
    finally:
        writer.close()


def _percentile(rounds: list[list[float]], share: int) -> float:
    """Return the median over the rounds of a percentile, in milliseconds."""
    return 1000 * median(quantiles(each, n=100)[share - 1] for each in rounds)
