"""Measures the operator's process: reconcile time, memory, CPU and API requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from bench.processes import cpu_seconds, memory
from bench.reconcile import audit_log
from bench.reconcile.measure_baseline import IMAGES, children
from bench.reconcile.servers import servers
from bench.reconcile.testbed import OPERATOR_NAMESPACE, apply_all, process, python
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Gone, Manifest
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, kind_of
from slotkeeper.reconcile.workqueue import WORKERS

METRICS = "127.0.0.1:19090"
SETTLE_SECONDS = 10.0
"""After this time without a write of the operator, it counts as idle."""
TIMEOUT = 900.0


@dataclass
class OperatorResult:
    """Measurements of one run."""

    seconds: float = 0.0
    """From when the last server was applied until the last child existed."""
    apply_seconds: float = 0.0
    """Time to apply the servers themselves, during which the operator already reconciles."""
    megabytes_empty: float = 0.0
    """Resident memory without servers."""
    megabytes: float = 0.0
    """Resident memory when idle."""
    megabytes_peak: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the operator until it was idle."""
    settle_seconds: float = 0.0
    edits: list[float] = field(default_factory=list)
    """Seconds from the response to an edit until its Deployment changed."""
    writes_when_idle: dict[str, int] = field(default_factory=dict)
    requests_when_idle: dict[str, float] = field(default_factory=dict)
    """Requests a minute, by verb and resource."""
    cpu_when_idle: float = 0.0
    """Share of a core."""
    writes_after_restart: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """Size of a run."""

    servers: int
    edits: int
    idle_seconds: float


async def measure(cluster: ApiCluster, scale: Scale, log: Path, logs: Path) -> OperatorResult:
    """Run all measurements. `log` is the API server's audit log, `logs` the folder for our logs."""
    result = OperatorResult()
    with _operator(logs) as operator:
        await _wait_until(_started, "operator started")
        await asyncio.sleep(SETTLE_SECONDS)
        result.megabytes_empty = memory(operator.pid).now
        await _create(cluster, scale.servers, result)
        result.settle_seconds = await _settle(log)
        result.cpu_seconds = cpu_seconds(operator.pid)
        result.megabytes, result.megabytes_peak = memory(operator.pid)
        result.edits = await _edit(cluster, scale)
        await _settle(log)
        await _idle(operator, log, scale.idle_seconds, result)
    restarted = datetime.now(UTC)
    with _operator(logs) as operator:
        await _wait_until(lambda: _has_reconciled(scale.servers), "all servers reconciled")
        await asyncio.sleep(SETTLE_SECONDS)
        result.writes_after_restart = dict(audit_log.writes(audit_log.requests(log, restarted)))
    return result


def _operator(logs: Path) -> Any:
    return process(
        logs / "operator.log",
        *python("slotkeeper", "operator"),
        *("--llama-server-image", IMAGES.llama_server, "--balancer-image", IMAGES.balancer),
        f"--llama-server-image-for-vendor=nvidia={IMAGES.by_vendor['nvidia']}",
        *("--download-image", IMAGES.download, "--lease-namespace", OPERATOR_NAMESPACE),
        *("--health", "127.0.0.1:0", "--metrics", METRICS),
    )


async def _create(cluster: ApiCluster, count: int, result: OperatorResult) -> None:
    """Apply the servers and wait for the last child."""
    raw_servers = servers(count)
    began = time.monotonic()
    async with _deployment_times(cluster) as times:
        applied = await apply_all(cluster, raw_servers, WORKERS)
        last_applied = time.monotonic()
        result.apply_seconds = last_applied - began
        # The replicas' Deployment is the last child that is applied.
        expected = {_replicas(raw) for raw in applied}
        await _wait_until(lambda: expected <= times.keys(), "all Deployments created")
        last_created = max(times[name] for name in expected)
    result.seconds = max(last_created - last_applied, 0.0)
    await _check(cluster, applied)


async def _check(cluster: ApiCluster, applied: list[Manifest]) -> None:
    existing = set()
    for kind in CHILDREN:
        async for page in cluster.pages(kind, None, {names.SERVER_LABEL: ""}):
            existing |= {_identity(item) for item in page.items}
    missing = {_identity(child) for raw in applied for child in children(raw)} - existing
    assert not missing, f"{len(missing)} children are missing, such as {missing.pop()}"


async def _edit(cluster: ApiCluster, scale: Scale) -> list[float]:
    """Edit two servers a second; return the delay until each edit's Deployment changed."""
    raw_servers = servers(scale.servers)
    edited: dict[tuple[str, str], float] = {}
    async with _deployment_times(cluster, changes_of="generation") as times:
        for number in range(scale.edits):
            raw = raw_servers[number * 7 % scale.servers]
            context = 2048 + 256 * (number // scale.servers + 1)
            await cluster.apply({**raw, "spec": {**raw["spec"], "contextPerSlot": context}})
            edited.setdefault(_replicas(raw), time.monotonic())
            await asyncio.sleep(0.5)
        await _wait_until(lambda: edited.keys() <= times.keys(), "all edits reconciled")
    return [times[name] - began for name, began in edited.items()]


async def _idle(operator: Popen[bytes], log: Path, seconds: float, result: OperatorResult) -> None:
    since = datetime.now(UTC)
    before = cpu_seconds(operator.pid)
    await asyncio.sleep(seconds)
    result.cpu_when_idle = (cpu_seconds(operator.pid) - before) / seconds
    requests = [request for request in audit_log.requests(log, since) if request.is_operators]
    result.writes_when_idle = dict(audit_log.writes(iter(requests)))
    rates = result.requests_when_idle
    for request in requests:
        kind = f"{request.verb} {request.resource}"
        rates[kind] = rates.get(kind, 0) + 60 / seconds


async def _settle(log: Path) -> float:
    """Wait until the operator is idle; return the seconds until its last write."""
    began = time.monotonic()
    while True:
        since = datetime.now(UTC)
        await asyncio.sleep(SETTLE_SECONDS)
        if not audit_log.writes(audit_log.requests(log, since)):
            return time.monotonic() - began - SETTLE_SECONDS
        if time.monotonic() - began > TIMEOUT:
            raise TimeoutError(f"the operator still writes after {TIMEOUT:.0f} s")


async def _metric(name: str) -> float:
    with suppress(httpx.HTTPError):
        async with httpx.AsyncClient() as client:
            for line in (await client.get(f"http://{METRICS}/metrics")).text.splitlines():
                if line.startswith(name):
                    return float(line.rpartition(" ")[2])
    return 0.0


async def _started() -> bool:
    return await _metric("process_cpu_seconds_total") > 0


async def _has_reconciled(count: int) -> bool:
    return await _metric('slotkeeper_operator_reconcile_total{result="success"}') >= count


async def _wait_until(condition: Callable[[], Any], subject: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        holds = condition()
        if await holds if asyncio.iscoroutine(holds) else holds:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out after {TIMEOUT:.0f} s: {subject}")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _deployment_times(
    cluster: ApiCluster, *, changes_of: str = ""
) -> AsyncIterator[dict[tuple[str, str], float]]:
    """Watch the replicas' Deployments; the dict has each one's time of creation, or with
    `changes_of` of the first change of this metadata field."""
    times: dict[tuple[str, str], float] = {}
    labels = {names.COMPONENT_LABEL: names.Component.REPLICA.value}
    listing = await cluster.list(DEPLOYMENTS, None, labels)
    before = {_identity(item)[1:]: item["metadata"].get(changes_of) for item in listing.items}

    async def watch(version: str) -> None:
        while True:
            with suppress(Gone):
                async for event in cluster.watch(DEPLOYMENTS, None, labels, version):
                    metadata = event.object["metadata"]
                    version = metadata["resourceVersion"]
                    name = (metadata.get("namespace"), metadata.get("name"))
                    if event.type != "BOOKMARK" and before.get(name) != (
                        metadata.get(changes_of) if changes_of else "new"
                    ):
                        times.setdefault(name, time.monotonic())

    watching = asyncio.create_task(watch(listing.resource_version))
    try:
        yield times
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _replicas(raw: Manifest) -> tuple[str, str]:
    server = LlamaServer.parse({**raw, "metadata": {"uid": "", **raw["metadata"]}})
    return server.namespace, names.replicas(server)


def _identity(item: Manifest) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return kind_of(item).plural, metadata["namespace"], metadata["name"]
