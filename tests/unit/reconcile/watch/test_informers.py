"""Informers list and watch into the store, and recover when a watch or a listing breaks."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from typing_extensions import override

from fake_cluster import FakeCluster
from slotkeeper.kube.cluster import ApiError, Gone, Listing, Manifest, Unreachable, WatchEvent
from slotkeeper.kube.kinds import LLAMA_SERVERS, SERVICES
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch import informers
from slotkeeper.reconcile.watch.informers import Informer, list_into
from slotkeeper.reconcile.watch.store import Store
from wait_until import until

A = Key("default", "a")


def service(name: str, server: str = "a") -> Manifest:
    labels = {"slotkeeper.dev/server": server}
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata}


class StreamingCluster(FakeCluster):
    """Its watches stay open until they are broken."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[ApiError] = []
        """Each ends one watch."""
        self.silent = False
        """Watches stay open and deliver no events."""
        self.events: list[WatchEvent] = []
        """Each is delivered by one watch, besides those of its own objects."""

    @override
    async def watch(self, *arguments: Any, **named: Any) -> AsyncIterator[WatchEvent]:
        kind, namespace, labels, version = arguments
        while True:
            if self.errors:
                raise self.errors.pop()
            while self.events:
                yield self.events.pop()
            async for event in super().watch(kind, namespace, labels, version, **named):
                version = event.object["metadata"]["resourceVersion"]
                if not self.silent:
                    yield event
            await asyncio.sleep(0)


@pytest.fixture
def streaming() -> StreamingCluster:
    return StreamingCluster()


@asynccontextmanager
async def synced_informer(
    cluster: FakeCluster, first_relist: float = 600
) -> AsyncIterator[tuple[Informer, Any]]:
    """A running informer after its first listing, and the keys that it reports as changed."""
    changed = list[Key]()

    def on_change(keys: Iterable[Key]) -> None:
        changed.extend(keys)

    informer = Informer(cluster, Store(), SERVICES, None, on_change)
    task = asyncio.create_task(informer.run(first_relist))
    try:
        await informer.synced.wait()
        yield informer, changed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def stored_names(informer: Informer) -> set[str]:
    return {name for _, name in informer.store.children(A)}


async def test_all_pages_of_a_listing_are_stored(streaming: StreamingCluster) -> None:
    for index in range(10):
        streaming.put(service(f"s{index}"))

    async with synced_informer(streaming) as (informer, changed):
        assert len(stored_names(informer)) == 10
        assert changed == [A]


async def test_changes_after_the_listing_are_watched(streaming: StreamingCluster) -> None:
    streaming.put(service("old"))

    async with synced_informer(streaming) as (informer, changed):
        changed.clear()
        streaming.put(service("new"))
        streaming.remove(SERVICES, "default", "old")
        await until(lambda: stored_names(informer) == {"new"})

    assert changed == [A, A]


@pytest.mark.parametrize("error", [Gone(410, "Expired", "too old"), Unreachable(0, "", "cut")])
async def test_changes_during_a_broken_watch_are_found_by_listing_again(
    streaming: StreamingCluster, error: ApiError
) -> None:
    streaming.put(service("deleted"))

    async with synced_informer(streaming) as (informer, changed):
        changed.clear()
        streaming.silent = True
        streaming.remove(SERVICES, "default", "deleted")
        streaming.put(service("created"))
        streaming.errors.append(error)
        await until(lambda: stored_names(informer) == {"created"})

    assert set(changed) == {A}


async def test_a_periodic_listing_finds_what_a_silent_watch_missed(
    streaming: StreamingCluster,
) -> None:
    streaming.silent = True

    async with synced_informer(streaming, first_relist=0.05) as (informer, changed):
        streaming.put(service("missed"))
        await until(lambda: stored_names(informer) == {"missed"})

    assert changed == [A]


async def test_a_watch_that_ends_without_an_error_is_renewed_without_a_listing() -> None:
    cluster = FakeCluster()

    async with synced_informer(cluster) as (informer, _):
        reads = cluster.reads
        cluster.put(service("late"))
        await until(lambda: stored_names(informer) == {"late"})

    assert cluster.reads == reads


async def test_an_informer_is_not_synced_before_it_has_listed(streaming: StreamingCluster) -> None:
    streaming.fail(Unreachable(0, "", "refused"), "list")
    informer = Informer(streaming, Store(), SERVICES, None, lambda _: None)
    task = asyncio.create_task(informer.run())

    for _ in range(5):
        await asyncio.sleep(0)
    early = informer.synced.is_set()
    streaming.recover()
    await until(informer.synced.is_set)

    assert early is False
    task.cancel()


async def test_a_listing_that_breaks_off_deletes_nothing_from_the_store() -> None:
    cluster, store = BrokenListings(), Store()
    for index in range(6):
        cluster.put(service(f"s{index}"))
    await list_into(store, cluster, SERVICES, None)
    cluster.broken = True

    with pytest.raises(Gone):
        await list_into(store, cluster, SERVICES, None)

    assert len(store.children(A)) == 6


class BrokenListings(FakeCluster):
    """Its listings end after the first page while `broken`."""

    broken = False

    @override
    async def pages(self, *arguments: Any) -> AsyncIterator[Listing]:
        async for page in super().pages(*arguments):
            yield page
            if self.broken:
                raise Gone(410, "Expired", "the continue parameter is too old")


async def test_all_kinds_of_children_have_an_informer_and_servers_have_none() -> None:
    kinds = {
        informer.kind.kind
        for informer in informers.informers(FakeCluster(), Store(), (), lambda _: None)
    }

    assert {"Deployment", "Service", "Lease", "Pod"} < kinds
    assert LLAMA_SERVERS.kind not in kinds


async def test_an_object_that_cannot_be_stored_costs_only_itself(
    streaming: StreamingCluster,
) -> None:
    counted = list[str]()
    async with synced_informer(streaming) as (informer, _):
        informer.store.isolation.on_error = counted.append
        without_uid = service("bad")
        without_uid["metadata"]["resourceVersion"] = "2"
        streaming.events.append(WatchEvent("ADDED", without_uid))
        streaming.put(service("later"))

        await until(lambda: stored_names(informer) == {"later"})

    assert counted == ["watch"]


async def test_a_watch_that_fails_in_an_unknown_way_is_started_again(
    streaming: StreamingCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with synced_informer(streaming) as (informer, _):
        streaming.errors.append(KeyError("resourceVersion"))  # type: ignore[arg-type]
        await until(lambda: "unexpected error in watch" in caplog.text)
        streaming.put(service("later"))

        await until(lambda: stored_names(informer) == {"later"})
