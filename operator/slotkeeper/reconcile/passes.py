"""What runs the passes over one kind of resource: work queue, resync, and what counts a pass."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from zlib import crc32

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.leader_election import OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.watch.informers import LIST_SECONDS, Informer
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import RetryError, Work, WorkQueue

RESYNC_SHARDS = 60
"""Every resource gets a pass within LIST_SECONDS though nothing changed, one shard at a time: time
alone may change its status."""


async def run_pass(
    reconcile: Work, key: Key, lease: OperatorLease, metrics: Metrics, now: Callable[[], float]
) -> None:
    """Make one pass and count it; `now` in seconds.

    Raises what `reconcile` does, and RetryError while another operator may lead.
    """
    started = now()
    failed = True
    try:
        if not lease.is_valid():
            # The store is as old as the Lease.
            raise RetryError("the lease was not renewed in time; another operator may lead")
        await reconcile(key)
        failed = False
    finally:
        metrics.count_reconcile(now() - started, failed=failed)


async def run_queue(queue: WorkQueue, informers: Iterable[Informer], work: Work) -> None:
    """Work on due keys until cancelled, after everything was listed."""

    async def synced(key: Key) -> None:
        # Before all kinds are listed, existing objects would seem to be missing.
        for informer in informers:
            if informer.namespace in {None, key.namespace}:
                await informer.synced.wait()
        await work(key)

    await queue.run(synced)


def enqueue_changed(queue: WorkQueue, store: Store, keys: Iterable[Key]) -> None:
    """These resources themselves changed: a user's change is worked on at once."""
    for key in keys:
        if store.is_unreadable(key):
            # Its report costs the API server as much as a hundred of others: they come first.
            queue.add_debounced(key)
        else:
            queue.add(key)


async def resync_periodically(store: Store, queue: WorkQueue) -> None:
    """Make every resource due once in LIST_SECONDS."""
    for index in itertools.count():
        await asyncio.sleep(LIST_SECONDS / RESYNC_SHARDS)
        for key in shard(store, index):
            queue.add_debounced(key)


def shard(store: Store, index: int) -> list[Key]:
    """One of RESYNC_SHARDS disjoint shards that together are all resources."""
    return [
        key
        for key in store.keys
        if crc32(str(key).encode()) % RESYNC_SHARDS == index % RESYNC_SHARDS
    ]


async def periodically(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run an action every so many seconds, first after them."""
    await asyncio.sleep(seconds)
    while True:
        # At the same time, not one after the other: a slow balancer must not delay all polls.
        await asyncio.gather(asyncio.sleep(seconds), action())
