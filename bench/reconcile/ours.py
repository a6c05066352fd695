"""The operator's own process under so many servers: how soon, how large, how quiet."""

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
from bench.reconcile import audit
from bench.reconcile.bed import OPERATOR_NAMESPACE, apply_all, process, python
from bench.reconcile.floor import IMAGES, children
from bench.reconcile.servers import servers
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Gone, Manifest
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, kind_of
from slotkeeper.reconcile.runtime import WORKERS

METRICS = "127.0.0.1:19090"
QUIET_SECONDS = 10.0
"""So long without a write of the operator's, and a run counts as settled."""
PATIENCE = 900.0


@dataclass
class Ours:
    """What a run has shown."""

    seconds: float = 0.0
    """From the last server's apply to the last child's being there."""
    applying: float = 0.0
    """That the servers themselves took to apply; the operator works meanwhile."""
    megabytes_empty: float = 0.0
    megabytes: float = 0.0
    """Resident, at rest."""
    megabytes_highest: float = 0.0
    cpu_seconds: float = 0.0
    """Of the operator, until all was at rest."""
    settled: float = 0.0
    edits: list[float] = field(default_factory=list)
    """Seconds from an edit's answer to its Deployment's change."""
    writes_at_rest: dict[str, int] = field(default_factory=dict)
    requests_at_rest: dict[str, float] = field(default_factory=dict)
    """A minute, by verb and resource."""
    cpu_at_rest: float = 0.0
    """Share of a core."""
    writes_after_restart: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    servers: int
    edits: int
    rest_seconds: float


async def measure(cluster: ApiCluster, scale: Scale, log: Path, logs: Path) -> Ours:
    """Everything of one run."""
    found = Ours()
    with _operator(logs) as operator:
        await _until(_started, "the operator's start")
        await asyncio.sleep(QUIET_SECONDS)
        found.megabytes_empty = memory(operator.pid).now
        await _create(cluster, scale.servers, found)
        found.settled = await _settle(log)
        found.cpu_seconds = cpu_seconds(operator.pid)
        found.megabytes, found.megabytes_highest = memory(operator.pid)
        found.edits = await _edit(cluster, scale)
        await _settle(log)
        await _rest(operator, log, scale.rest_seconds, found)
    restarted = datetime.now(UTC)
    with _operator(logs) as operator:
        await _until(lambda: _has_looked(scale.servers), "a look at all servers")
        await asyncio.sleep(QUIET_SECONDS)
        found.writes_after_restart = dict(audit.writes(audit.requests(log, restarted)))
    return found


def _operator(logs: Path) -> Any:
    return process(
        logs / "operator.log",
        *python("slotkeeper", "operator"),
        *("--llama-server-image", IMAGES.llama_server, "--balancer-image", IMAGES.balancer),
        *("--download-image", IMAGES.download, "--lease-namespace", OPERATOR_NAMESPACE),
        *("--health", "127.0.0.1:0", "--metrics", METRICS),
    )


async def _create(cluster: ApiCluster, count: int, found: Ours) -> None:
    """Apply the servers; wait for the last child."""
    wanted = servers(count)
    began = time.monotonic()
    async with _deployments(cluster) as seen:
        applied = await apply_all(cluster, wanted, WORKERS)
        last = time.monotonic()
        found.applying = last - began
        # A replica's Deployment is the last child that is applied.
        expected = {_replicas(raw) for raw in applied}
        await _until(lambda: expected <= seen.keys(), "all Deployments")
        there = max(seen[place] for place in expected)
    found.seconds = max(there - last, 0.0)
    await _check(cluster, applied)


async def _check(cluster: ApiCluster, applied: list[Manifest]) -> None:
    there = set()
    for kind in CHILDREN:
        async for page in cluster.pages(kind, None, {names.SERVER_LABEL: ""}):
            there |= {_place(item) for item in page.items}
    missing = {_place(child) for raw in applied for child in children(raw)} - there
    assert not missing, f"{len(missing)} children are missing, such as {missing.pop()}"


async def _edit(cluster: ApiCluster, scale: Scale) -> list[float]:
    """Two edits a second, each of another server; how soon each showed in its Deployment."""
    wanted = servers(scale.servers)
    asked: dict[tuple[str, str], float] = {}
    async with _deployments(cluster, changes_of="generation") as seen:
        for number in range(scale.edits):
            raw = wanted[number * 7 % scale.servers]
            context = 2048 + 256 * (number // scale.servers + 1)
            await cluster.apply({**raw, "spec": {**raw["spec"], "contextPerSlot": context}})
            asked.setdefault(_replicas(raw), time.monotonic())
            await asyncio.sleep(0.5)
        await _until(lambda: asked.keys() <= seen.keys(), "all edits")
    return [seen[place] - began for place, began in asked.items()]


async def _rest(operator: Popen[bytes], log: Path, seconds: float, found: Ours) -> None:
    since = datetime.now(UTC)
    used = cpu_seconds(operator.pid)
    await asyncio.sleep(seconds)
    found.cpu_at_rest = (cpu_seconds(operator.pid) - used) / seconds
    asked = [request for request in audit.requests(log, since) if request.is_operators]
    found.writes_at_rest = dict(audit.writes(iter(asked)))
    for request in asked:
        what = f"{request.verb} {request.resource}"
        found.requests_at_rest[what] = found.requests_at_rest.get(what, 0) + 60 / seconds


async def _settle(log: Path) -> float:
    """Wait until the operator has written nothing for a while; seconds that it took."""
    began = time.monotonic()
    while True:
        since = datetime.now(UTC)
        await asyncio.sleep(QUIET_SECONDS)
        if not audit.writes(audit.requests(log, since)):
            return time.monotonic() - began - QUIET_SECONDS
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError("the operator does not come to rest")


async def _metric(name: str) -> float:
    with suppress(httpx.HTTPError):
        async with httpx.AsyncClient() as client:
            for line in (await client.get(f"http://{METRICS}/metrics")).text.splitlines():
                if line.startswith(name):
                    return float(line.rpartition(" ")[2])
    return 0.0


async def _started() -> bool:
    return await _metric("process_cpu_seconds_total") > 0


async def _has_looked(count: int) -> bool:
    return await _metric('slotkeeper_operator_reconcile_total{result="success"}') >= count


async def _until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        said = true()
        if await said if asyncio.iscoroutine(said) else said:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _deployments(
    cluster: ApiCluster, *, changes_of: str = ""
) -> AsyncIterator[dict[tuple[str, str], float]]:
    """When each replicas' Deployment was first seen, or first seen to change, while it is open."""
    seen: dict[tuple[str, str], float] = {}
    labels = {names.COMPONENT_LABEL: names.Component.REPLICA.value}
    listing = await cluster.list(DEPLOYMENTS, None, labels)
    before = {_place(item)[1:]: item["metadata"].get(changes_of) for item in listing.items}

    async def watch(version: str) -> None:
        while True:
            with suppress(Gone):
                async for event in cluster.watch(DEPLOYMENTS, None, labels, version):
                    metadata = event.object["metadata"]
                    version = metadata["resourceVersion"]
                    place = (metadata.get("namespace"), metadata.get("name"))
                    if event.type != "BOOKMARK" and before.get(place) != (
                        metadata.get(changes_of) if changes_of else "new"
                    ):
                        seen.setdefault(place, time.monotonic())

    watching = asyncio.create_task(watch(listing.resource_version))
    try:
        yield seen
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _replicas(raw: Manifest) -> tuple[str, str]:
    server = LlamaServer.parse({**raw, "metadata": {"uid": "", **raw["metadata"]}})
    return server.namespace, names.replicas(server)


def _place(item: Manifest) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return kind_of(item).plural, metadata["namespace"], metadata["name"]
