"""Informers: list and watch LlamaGateways, and the children and pods of all resources.

Not through kopf, which keeps a record and starts a worker for each object: for the ten thousand
objects of a thousand servers that is 120 MB and a millisecond an event. Nor does kopf report when
it has listed everything, or what was deleted while a watch was broken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from slotkeeper.backoff import Backoff
from slotkeeper.kube.cluster import ApiError, Cluster, Gone, Kind, Manifest
from slotkeeper.kube.kinds import CHILDREN, GATEWAY_CHILDREN, PODS, REPLICA_SETS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch.store import Store, uids_of

INFORMED = (*CHILDREN, REPLICA_SETS, PODS)
"""The kinds that a server may own, and pods with their owners."""

GATEWAYS_INFORMED = (*GATEWAY_CHILDREN, REPLICA_SETS, PODS)
"""The same of a gateway."""

LIST_SECONDS = 600.0
"""Between two listings of a kind whose watch seems to work: watches have lost events."""

RETRY = Backoff(0.1, 30.0)
"""Between two listings of a kind whose watch ends."""

WATCH_PAUSE_SECONDS = 1.0
"""After a watch that ended regularly, as each does after minutes: one that ends at once must not be
renewed in a loop."""

OnChange = Callable[[Iterable[Key]], None]

log = logging.getLogger(__name__)


async def list_into(
    store: Store, cluster: Cluster, kind: Kind, namespace: str | None
) -> tuple[str, set[Key]]:
    """List a kind into the store.

    Returns the resource version from which to watch, and the servers whose objects changed.
    """
    changed = set[Key]()
    uids = dict[tuple[str, str], str]()
    version = ""
    newest = store.newest(kind)
    async for page in cluster.pages(kind, namespace, _labels(store, kind)):
        if not version and int(page.resource_version) < newest:
            log.warning(
                "%s: version %s after %d: the API server's data was restored from a backup; "
                "starting anew",
                kind.plural,
                page.resource_version,
                newest,
            )
            store.start_anew(kind)
        for item in page.items:
            with store.isolation(_place(item)):
                changed |= store.put(item)
        uids |= uids_of(page.items)
        version = page.resource_version
    return version, changed | store.replace_all(kind, uids, version, namespace)


@dataclass
class Informer:
    """Lists and watches one kind, in one namespace or (None) in all."""

    cluster: Cluster
    store: Store
    kind: Kind
    namespace: str | None
    on_change: OnChange
    list_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it lists. Informers share one: a page takes several megabytes while it is read."""
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the first listing."""

    async def run(self, first_relist: float = LIST_SECONDS) -> None:
        """Keep the store up to date until cancelled; list again first after that many seconds."""
        loop = asyncio.get_running_loop()
        failures = 0
        relist = first_relist
        while True:
            started = loop.time()
            with self.store.isolation(self.kind.plural):
                try:
                    await self._list_and_watch(relist)
                except TimeoutError:
                    relist = LIST_SECONDS
                except Gone:
                    pass  # the version is too old to watch from: list again
                except ApiError as error:
                    place = f" in {self.namespace}" if self.namespace else ""
                    log.warning("watch of %s%s: %s", self.kind.plural, place, error)
            if loop.time() - started > RETRY.maximum:
                failures = 0
            failures += 1
            await asyncio.sleep(RETRY.delay(failures))

    async def _list_and_watch(self, seconds: float) -> None:
        """Raises TimeoutError after having watched for so long."""
        async with self.list_lock:
            version, changed = await list_into(self.store, self.cluster, self.kind, self.namespace)
        self.synced.set()
        self.on_change(changed)
        async with asyncio.timeout(seconds):
            await self._watch(version)

    async def _watch(self, version: str) -> None:
        while True:
            labels = _labels(self.store, self.kind)
            watch = self.cluster.watch(self.kind, self.namespace, labels, version)
            async for event in watch:
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    with self.store.isolation(_place(event.object)):
                        self.on_change(self.store.apply_event(event))
            await asyncio.sleep(WATCH_PAUSE_SECONDS)


def informers(
    cluster: Cluster,
    store: Store,
    namespaces: Sequence[str],
    on_change: OnChange,
    kinds: Iterable[Kind] = INFORMED,
) -> list[Informer]:
    """An informer for each of these kinds in each of the namespaces, or (none) in all."""
    lock = asyncio.Lock()
    return [
        Informer(cluster, store, kind, namespace, on_change, lock)
        for namespace in namespaces or (None,)
        for kind in kinds
    ]


async def run_informers(running: Iterable[Informer]) -> None:
    """Run all of them, with their periodic listings spread over time."""
    every = list(running)
    async with asyncio.TaskGroup() as group:
        for index, informer in enumerate(every, start=1):
            group.create_task(informer.run(LIST_SECONDS * index / len(every)))


def _place(manifest: Manifest) -> str:
    metadata = manifest.get("metadata") or {}
    return f"{manifest.get('kind')} {metadata.get('namespace')}/{metadata.get('name')}"


def _labels(store: Store, kind: Kind) -> dict[str, str] | None:
    return None if kind == store.kind else {store.label: ""}
