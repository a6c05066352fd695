"""Runs the operator: queue, watches, the look at demand, the resync and the Lease."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from zlib import crc32

import kopf

from slotkeeper.kube.cluster import ApiError, Cluster, NotFound, WatchEvent
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.demand.tracker import POLL_SECONDS, DemandTracker
from slotkeeper.reconcile.leader_election import LeaderElection
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.watch import kopf_watch
from slotkeeper.reconcile.watch.informers import (
    LIST_SECONDS,
    Informer,
    informers,
    list_into,
    run_informers,
)
from slotkeeper.reconcile.watch.kopf_watch import MAX_IDLE_TIMEOUT
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError, WorkQueue

RESYNC_SHARDS = 60
"""Every server is looked at though nothing woke us, each of these shares at a time of its own
within LIST_SECONDS: time alone may change what is to be said of it."""

WORKERS = 16
"""Servers that are worked on at the same time."""

CRD_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """All that runs beside kopf."""

    cluster: Cluster
    store: Store
    reconciler: Reconciler
    demand: DemandTracker
    queue: WorkQueue
    lease: LeaderElection
    metrics: Metrics
    monotonic: Callable[[], float]

    def on_server_event(self, event: WatchEvent) -> None:
        """kopf saw a server: whatever a user changed is worked on at once."""
        self._add(self.store.apply_event(event))

    def enqueue(self, keys: Iterable[Key]) -> None:
        """There is news of what these servers own."""
        for key in keys:
            self.queue.add_debounced(key)

    async def run(self, namespace: str | None, idle_timeout: float = MAX_IDLE_TIMEOUT) -> None:
        """Run in one namespace or (None) in all, until a signal tells kopf to end; `silence` is
        how many seconds kopf's watches may say nothing.

        Raises an ExceptionGroup of whatever ended one of the parts: LeadershipLostError, ApiError.
        """
        await self.list_servers(namespace)
        async with asyncio.TaskGroup() as group:
            fed = informers(self.cluster, self.store, namespace, self.enqueue)
            parts = (
                self.lease.hold(),
                run_informers(fed),
                self._reconcile(fed),
                _periodically(POLL_SECONDS, self.poll_demand),
                _periodically(LIST_SECONDS, lambda: self.resync(namespace)),
                self._resync_loop(),
            )
            beside = [group.create_task(part) for part in parts]
            # Last: as it ends, kopf waits seconds for tasks that are younger than its own, and the
            # next leader waits with it. All the others have begun, and have theirs, before it does.
            await group.create_task(self._watch(namespace, idle_timeout))
            for task in beside:
                task.cancel()

    async def work(self, key: Key) -> None:
        """Reconcile one server and count it. Raises what `reconcile` does, and TryAgainError while
        another operator may do it."""
        start = self.monotonic()
        failed = True
        try:
            if not self.lease.is_valid():
                # What it knows of the cluster is as old.
                raise RetryError("the lease has not been renewed for long: another may lead")
            await self.reconciler.reconcile(key)
            failed = False
        finally:
            self.metrics.count_reconcile(self.monotonic() - start, failed=failed)
            decided = self.reconciler.scaling_snapshot(key)
            if decided or not failed:
                self.metrics.count_decision(key, decided)

    async def poll_demand(self) -> None:
        """Look at the balancers; wake the servers of which they say something new."""
        heard = set[Key]()

        def hear(key: Key) -> None:
            heard.add(key)
            if self.reconciler.needs_scaling(key):
                self._enqueue_unless_failing(key)

        await self.demand.poll(hear)
        for key in self.reconciler.due(besides=heard):
            self._enqueue_unless_failing(key)
        for key in self.reconciler.status_stale():
            if not self.queue.is_failing(key):
                self.queue.add_debounced(key)

    async def list_servers(self, namespace: str | None) -> None:
        """List all servers once there is such a thing: kopf would never notice it later."""
        while True:
            try:
                await self._list(namespace)
            except ApiError as error:
                log.warning("cannot list LlamaServers yet: %s", error)
                await asyncio.sleep(CRD_SECONDS)
            else:
                return

    async def resync(self, namespace: str | None) -> None:
        """List all servers anew, for kopf's watch may have missed something, and does miss what
        went while it was broken. Raises NotFound where their CRD is gone."""
        try:
            await self._list(namespace)
        except NotFound:
            raise
        except ApiError as error:
            log.warning("resync: %s", error)

    def resync_shard(self, index: int) -> list[Key]:
        """One of SHARES shares of the servers; all of them together are all servers."""
        return [
            key
            for key in self.store.servers
            if crc32(str(key).encode()) % RESYNC_SHARDS == index % RESYNC_SHARDS
        ]

    async def _list(self, namespace: str | None) -> None:
        _, news = await list_into(self.store, self.cluster, LLAMA_SERVERS, namespace)
        self._add(news)

    def _enqueue_unless_failing(self, key: Key) -> None:
        # Numbers are no reason to try again what has just failed, but that nothing is left to try.
        if not self.queue.is_failing(key) or self.reconciler.no_longer_wanted(key):
            self.queue.add(key)

    def _add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.queue.add(key)

    async def _reconcile(self, fed: Iterable[Informer]) -> None:
        async def work(key: Key) -> None:
            # Before all is listed, what is there would be taken for missing.
            for feed in fed:
                await feed.synced.wait()
            await self.work(key)

        await self.queue.run(work, workers=WORKERS)

    async def _resync_loop(self) -> None:
        for index in itertools.count():
            await asyncio.sleep(LIST_SECONDS / RESYNC_SHARDS)
            self.enqueue(self.resync_shard(index))

    async def _watch(self, namespace: str | None, idle_timeout: float) -> None:
        await kopf.operator(
            registry=kopf_watch.registry(self.on_server_event, self.lease.on_watched_renewal),
            settings=kopf_watch.settings(idle_timeout),
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            standalone=True,
            # Without one kopf asks for the user's name, and a pod's user has none. It is only for
            # peering, which is off; kopf exports no name for its type.
            identity=cast("Any", "slotkeeper"),
        )


async def _periodically(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    while True:
        # Beside the pause, not after it: a slow balancer must not make the looks at all rarer.
        await asyncio.gather(asyncio.sleep(seconds), action())
