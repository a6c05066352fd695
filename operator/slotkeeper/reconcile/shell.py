"""Runs the operator: the queue, kopf's watches, the look at demand, the resync and the Lease."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import kopf

from slotkeeper.kube.cluster import ApiError, Cluster, NotFound
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.reconcile import handlers
from slotkeeper.reconcile.demand import LOOK_SECONDS, Demand
from slotkeeper.reconcile.lease import Lease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.queue import Key, Queue
from slotkeeper.reconcile.reconcile import Reconciler

RESYNC_SECONDS = 600.0
"""How often every server is looked at though nothing woke us: watches have lost events."""

WORKERS = 16
"""Servers that are worked on at the same time."""

CRD_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shell:
    """All that runs beside kopf."""

    cluster: Cluster
    reconciler: Reconciler
    demand: Demand
    queue: Queue
    lease: Lease
    metrics: Metrics
    monotonic: Callable[[], float]

    def server_seen(self, key: Key, resource_version: str) -> None:
        """kopf saw a server, in this version."""
        if not self.reconciler.wrote(key, resource_version):
            self.child_seen(key)

    def child_seen(self, key: Key) -> None:
        """kopf saw something of this server's."""
        self.reconciler.changed(key)
        self.queue.add(key)

    async def run(self, namespace: str | None) -> None:
        """Run in one namespace or (None) in all, until a signal tells kopf to end.

        Raises an ExceptionGroup of whatever ended one of the parts: LeadershipLostError, ApiError.
        """
        await self.wait_for_crd(namespace)
        async with asyncio.TaskGroup() as group:
            parts = (
                self.lease.hold(),
                self.queue.run(self.work, workers=WORKERS),
                _every(LOOK_SECONDS, self.look),
                _every(RESYNC_SECONDS, lambda: self.resync(namespace)),
            )
            beside = [group.create_task(part) for part in parts]
            # Last: as it ends, kopf waits for all tasks that are younger than its own.
            await group.create_task(self._watch(namespace))
            for task in beside:
                task.cancel()

    async def work(self, key: Key) -> None:
        """Reconcile one server and count it."""
        start, failed = self.monotonic(), True
        try:
            await self.reconciler.reconcile(key)
            failed = False
        finally:
            self.metrics.reconciled(self.monotonic() - start, failed=failed)
            decided = self.reconciler.decided(key)
            if decided or not failed:
                self.metrics.decided(key, decided)

    async def look(self) -> None:
        """Look at the balancers; wake the servers of which they say something new."""
        await self.demand.look()
        for key in self.reconciler.stirring():
            # Numbers are no reason to try again what has just failed.
            if not self.queue.is_failing(key):
                self.queue.add(key)

    async def resync(self, namespace: str | None) -> None:
        """Have every server looked at. Raises NotFound where their CRD is gone."""
        try:
            listing = await self.cluster.list(LLAMA_SERVERS, namespace)
        except NotFound:
            raise
        except ApiError as error:
            log.warning("resync: %s", error)
            return
        listed = (item["metadata"] for item in listing.items)
        keys = {Key(metadata["namespace"], metadata["name"]) for metadata in listed}
        for key in keys.union(self.reconciler.keys):
            self.child_seen(key)

    async def wait_for_crd(self, namespace: str | None) -> None:
        """Wait until there is such a thing as a LlamaServer: kopf would never notice it later."""
        while True:
            try:
                await self.cluster.list(LLAMA_SERVERS, namespace)
            except ApiError as error:
                log.warning("cannot list LlamaServers yet: %s", error)
                await asyncio.sleep(CRD_SECONDS)
            else:
                return

    async def _watch(self, namespace: str | None) -> None:
        await kopf.operator(
            registry=handlers.registry(self.server_seen, self.child_seen, self.lease.seen),
            settings=handlers.settings(),
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            standalone=True,
            # Without one kopf asks for the user's name, and a pod's user has none. It is only for
            # peering, which is off; kopf exports no name for its type.
            identity=cast("Any", "slotkeeper"),
        )


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    while True:
        # Beside the pause, not after it: a slow balancer must not make the looks at all rarer.
        await asyncio.gather(asyncio.sleep(seconds), action())
