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
from slotkeeper.reconcile.demand.tracker import LOOK_SECONDS, Demand
from slotkeeper.reconcile.leader_election import Lease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.watch import kopf_watch
from slotkeeper.reconcile.watch.informers import LIST_SECONDS, Feed, feeds, list_into, run_feeds
from slotkeeper.reconcile.watch.kopf_watch import LONGEST_SILENCE
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import Key, Queue, TryAgainError

SHARES = 60
"""Every server is looked at though nothing woke us, each of these shares at a time of its own
within LIST_SECONDS: time alone may change what is to be said of it."""

WORKERS = 16
"""Servers that are worked on at the same time."""

CRD_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shell:
    """All that runs beside kopf."""

    cluster: Cluster
    store: Store
    reconciler: Reconciler
    demand: Demand
    queue: Queue
    lease: Lease
    metrics: Metrics
    monotonic: Callable[[], float]

    def server_seen(self, event: WatchEvent) -> None:
        """kopf saw a server: whatever a user changed is worked on at once."""
        self._add(self.store.shown(event))

    def wake(self, keys: Iterable[Key]) -> None:
        """There is news of what these servers own."""
        for key in keys:
            self.queue.settle(key)

    async def run(self, namespace: str | None, silence: float = LONGEST_SILENCE) -> None:
        """Run in one namespace or (None) in all, until a signal tells kopf to end; `silence` is
        how many seconds kopf's watches may say nothing.

        Raises an ExceptionGroup of whatever ended one of the parts: LeadershipLostError, ApiError.
        """
        await self.list_servers(namespace)
        async with asyncio.TaskGroup() as group:
            fed = feeds(self.cluster, self.store, namespace, self.wake)
            parts = (
                self.lease.hold(),
                run_feeds(fed),
                self._reconcile(fed),
                _every(LOOK_SECONDS, self.look),
                _every(LIST_SECONDS, lambda: self.resync(namespace)),
                self._look_again(),
            )
            beside = [group.create_task(part) for part in parts]
            # Last: as it ends, kopf waits seconds for tasks that are younger than its own, and the
            # next leader waits with it. All the others have begun, and have theirs, before it does.
            await group.create_task(self._watch(namespace, silence))
            for task in beside:
                task.cancel()

    async def work(self, key: Key) -> None:
        """Reconcile one server and count it. Raises what `reconcile` does, and TryAgainError while
        another operator may do it."""
        start = self.monotonic()
        failed = True
        try:
            if not self.lease.is_sure():
                # What it knows of the cluster is as old.
                raise TryAgainError("the lease has not been renewed for long: another may lead")
            await self.reconciler.reconcile(key)
            failed = False
        finally:
            self.metrics.reconciled(self.monotonic() - start, failed=failed)
            decided = self.reconciler.decided(key)
            if decided or not failed:
                self.metrics.decided(key, decided)

    async def look(self) -> None:
        """Look at the balancers; wake the servers of which they say something new."""
        heard = set[Key]()

        def hear(key: Key) -> None:
            heard.add(key)
            if self.reconciler.stirs(key):
                self._decide(key)

        await self.demand.look(hear)
        for key in self.reconciler.stirring(besides=heard):
            self._decide(key)
        for key in self.reconciler.outdated():
            if not self.queue.is_failing(key):
                self.queue.settle(key)

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

    def share(self, index: int) -> list[Key]:
        """One of SHARES shares of the servers; all of them together are all servers."""
        return [
            key for key in self.store.servers if crc32(str(key).encode()) % SHARES == index % SHARES
        ]

    async def _list(self, namespace: str | None) -> None:
        _, news = await list_into(self.store, self.cluster, LLAMA_SERVERS, namespace)
        self._add(news)

    def _decide(self, key: Key) -> None:
        # Numbers are no reason to try again what has just failed, but that nothing is left to try.
        if not self.queue.is_failing(key) or self.reconciler.gives_up(key):
            self.queue.add(key)

    def _add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.queue.add(key)

    async def _reconcile(self, fed: Iterable[Feed]) -> None:
        async def work(key: Key) -> None:
            # Before all is listed, what is there would be taken for missing.
            for feed in fed:
                await feed.complete.wait()
            await self.work(key)

        await self.queue.run(work, workers=WORKERS)

    async def _look_again(self) -> None:
        for index in itertools.count():
            await asyncio.sleep(LIST_SECONDS / SHARES)
            self.wake(self.share(index))

    async def _watch(self, namespace: str | None, silence: float) -> None:
        await kopf.operator(
            registry=kopf_watch.registry(self.server_seen, self.lease.seen),
            settings=kopf_watch.settings(silence),
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
