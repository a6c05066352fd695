"""Feeds the store with the children and pods of all servers: list, watch, and list again.

Not through kopf: it keeps a record and starts a worker for each object, which for the ten thousand
objects of a thousand servers is 120 MB and a millisecond an event. And it does not say when it has
listed all, nor of what went while a watch was broken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from slotkeeper.backoff import Backoff
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Gone, Kind
from slotkeeper.kube.kinds import CHILDREN, LLAMA_SERVERS, PODS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch.store import Store, uids_of

LIST_SECONDS = 600.0
"""How often all is listed anew though the watch seems to live: watches have lost events."""

RETRY = Backoff(0.1, 30.0)
"""Between two listings of a kind whose watch ends."""

OnChange = Callable[[Iterable[Key]], None]

log = logging.getLogger(__name__)


async def list_into(
    store: Store, cluster: Cluster, kind: Kind, namespace: str | None
) -> tuple[str, set[Key]]:
    """List a kind into the store: the version to watch from, and for which servers it is news."""
    news = set[Key]()
    uids = dict[tuple[str, str], str]()
    version = ""
    async for page in cluster.pages(kind, namespace, _labels(kind)):
        for item in page.items:
            news |= store.put(item)
        uids |= uids_of(page.items)
        version = page.resource_version
    return version, news | store.replace_all(kind, uids, version)


@dataclass
class Informer:
    """One kind's way into the store."""

    cluster: Cluster
    store: Store
    kind: Kind
    namespace: str | None
    on_change: OnChange
    list_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it lists. Feeds share one: a page is several megabytes while it is read."""
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all has been listed."""

    async def run(self, first_relist: float = LIST_SECONDS) -> None:
        """Keep the store as the cluster is, for ever; list again first after that many seconds."""
        loop = asyncio.get_running_loop()
        failures = 0
        relist = first_relist
        while True:
            began = loop.time()
            try:
                async with self.list_lock:
                    version, news = await list_into(
                        self.store, self.cluster, self.kind, self.namespace
                    )
                self.synced.set()
                self.on_change(news)
                async with asyncio.timeout(relist):
                    await self._watch(version)
            except TimeoutError:
                relist = LIST_SECONDS
            except Gone:
                pass  # that is what listing again is for
            except ApiError as error:
                log.warning("watch of %s: %s", self.kind.plural, error)
            if loop.time() - began > RETRY.maximum:
                # It went well for a while.
                failures = 0
            failures += 1
            await asyncio.sleep(RETRY.delay(failures))

    async def _watch(self, version: str) -> None:
        while True:
            watch = self.cluster.watch(self.kind, self.namespace, _labels(self.kind), version)
            async for event in watch:
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    self.on_change(self.store.apply_event(event))
            # A stream ends in peace every few minutes. One that ends at once must not do so often.
            await asyncio.sleep(1)


def informers(
    cluster: Cluster, store: Store, namespace: str | None, wake: OnChange
) -> list[Informer]:
    """A feed for each kind that a server may own, and for pods."""
    turn = asyncio.Lock()
    return [Informer(cluster, store, kind, namespace, wake, turn) for kind in (*CHILDREN, PODS)]


async def run_informers(fed: Iterable[Informer]) -> None:
    """Run all of them, with their listings spread over time."""
    running = list(fed)
    async with asyncio.TaskGroup() as group:
        for index, feed in enumerate(running, start=1):
            group.create_task(feed.run(LIST_SECONDS * index / len(running)))


def _labels(kind: Kind) -> dict[str, str] | None:
    return None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
