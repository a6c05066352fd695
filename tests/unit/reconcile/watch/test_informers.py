"""How the store is fed: listings, watches, and what happens when they break."""

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


class Streams(FakeCluster):
    """Watches stay open, and break when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks: list[ApiError] = []
        self.watched_from: list[str] = []
        self.deaf = False
        """The watches say nothing any more, in peace."""

    @override
    async def watch(self, *arguments: Any, **named: Any) -> AsyncIterator[WatchEvent]:
        kind, namespace, labels, version = arguments
        self.watched_from.append(version)
        while True:
            if self.breaks:
                raise self.breaks.pop()
            async for event in super().watch(kind, namespace, labels, version, **named):
                version = event.object["metadata"]["resourceVersion"]
                if not self.deaf:
                    yield event
            await asyncio.sleep(0)


@pytest.fixture
def streams() -> Streams:
    return Streams()


@asynccontextmanager
async def fed(
    cluster: FakeCluster, first_relist: float = 600
) -> AsyncIterator[tuple[Informer, Any]]:
    woken = list[Key]()

    def wake(keys: Iterable[Key]) -> None:
        woken.extend(keys)

    feed = Informer(cluster, Store(), SERVICES, None, wake)
    task = asyncio.create_task(feed.run(first_relist))
    try:
        await feed.synced.wait()
        yield feed, woken
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def names(feed: Informer) -> set[str]:
    return {name for _, name in feed.store.children(A)}


async def test_all_pages_of_a_listing_are_in_the_store(streams: Streams) -> None:
    for index in range(10):
        streams.put(service(f"s{index}"))

    async with fed(streams) as (feed, woken):
        assert len(names(feed)) == 10
        assert woken == [A]


async def test_what_happens_after_the_listing_comes_by_the_watch(streams: Streams) -> None:
    streams.put(service("old"))

    async with fed(streams) as (feed, woken):
        woken.clear()
        streams.put(service("new"))
        streams.remove(SERVICES, "default", "old")
        await until(lambda: names(feed) == {"new"})

    assert woken == [A, A]


@pytest.mark.parametrize("error", [Gone(410, "Expired", "too old"), Unreachable(0, "", "cut")])
async def test_what_went_while_a_watch_was_broken_is_found_by_listing_again(
    streams: Streams, error: ApiError
) -> None:
    streams.put(service("gone"))

    async with fed(streams) as (feed, woken):
        woken.clear()
        streams.deaf = True
        streams.remove(SERVICES, "default", "gone")
        streams.put(service("come"))
        streams.breaks.append(error)
        await until(lambda: names(feed) == {"come"})

    assert set(woken) == {A}


async def test_a_watch_that_says_nothing_any_more_is_not_trusted_for_ever(
    streams: Streams,
) -> None:
    streams.deaf = True

    async with fed(streams, first_relist=0.05) as (feed, woken):
        streams.put(service("unheard"))
        await until(lambda: names(feed) == {"unheard"})

    assert woken == [A]


async def test_a_stream_that_ends_in_peace_costs_no_listing() -> None:
    cluster = FakeCluster()

    async with fed(cluster) as (feed, _):
        reads = cluster.reads
        cluster.put(service("late"))
        await until(lambda: names(feed) == {"late"})

    assert cluster.reads == reads


async def test_without_an_api_server_nothing_is_complete(streams: Streams) -> None:
    refused = Unreachable(0, "", "refused")
    streams.refuse = lambda verb, _: refused if verb == "list" else None
    feed = Informer(streams, Store(), SERVICES, None, lambda _: None)
    task = asyncio.create_task(feed.run())

    for _ in range(5):
        await asyncio.sleep(0)
    early = feed.synced.is_set()
    streams.refuse = lambda *_: None
    await until(feed.synced.is_set)

    assert early is False
    task.cancel()


async def test_a_listing_that_breaks_off_makes_nothing_go() -> None:
    cluster, store = Torn(), Store()
    for index in range(6):
        cluster.put(service(f"s{index}"))
    await list_into(store, cluster, SERVICES, None)
    cluster.tears = True

    with pytest.raises(Gone):
        await list_into(store, cluster, SERVICES, None)

    assert len(store.children(A)) == 6


class Torn(FakeCluster):
    """Its listings end after the first page."""

    tears = False

    @override
    async def pages(self, *arguments: Any) -> AsyncIterator[Listing]:
        async for page in super().pages(*arguments):
            yield page
            if self.tears:
                raise Gone(410, "Expired", "the continue parameter is too old")


async def test_there_is_a_feed_for_whatever_a_server_may_own_but_not_for_servers() -> None:
    kinds = {
        feed.kind.kind for feed in informers.informers(FakeCluster(), Store(), None, lambda _: None)
    }

    assert {"Deployment", "Service", "Lease", "Pod"} < kinds
    assert LLAMA_SERVERS.kind not in kinds
