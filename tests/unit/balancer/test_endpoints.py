import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from election_harness import WatchedCluster
from slotkeeper.balancer.upstream.endpoints import replicas_in, service_labels
from slotkeeper.kube.cluster import ApiError, Cluster, Gone, Kind, Listing, Unreachable, WatchEvent
from slotkeeper.kube.kinds import ENDPOINT_SLICES
from slotkeeper.kube.watch import list_and_watch
from wait_until import until

Slice = dict[str, Any]


def slice_of(name: str, *endpoints: Slice, port: int = 8080, port_name: str = "http") -> Slice:
    return {
        "metadata": {"name": name},
        "ports": [{"name": "other", "port": 1}, {"name": port_name, "port": port}],
        "endpoints": list(endpoints),
    }


def endpoint(address: str, **conditions: bool) -> Slice:
    return {"addresses": [address], "conditions": conditions}


@pytest.mark.parametrize(
    ("conditions", "usable"),
    [
        pytest.param({"ready": True}, True, id="ready"),
        pytest.param({}, True, id="unset means ready"),
        pytest.param({"ready": False}, False, id="not ready"),
        pytest.param({"ready": False, "serving": True, "terminating": True}, False, id="leaving"),
        pytest.param({"ready": True, "terminating": True}, False, id="leaving though ready"),
    ],
)
def test_a_replica_is_usable_if_it_is_ready_and_not_terminating(
    conditions: dict[str, bool], usable: bool
) -> None:
    assert replicas_in([slice_of("a", endpoint("10.0.0.1", **conditions))]) == {
        "10.0.0.1:8080": usable
    }


def test_slices_are_merged_and_ready_in_one_is_ready() -> None:
    slices = [
        slice_of("a", endpoint("10.0.0.1", ready=False), endpoint("10.0.0.2", ready=True)),
        slice_of("b", endpoint("10.0.0.1", ready=True), endpoint("fd00::1", ready=True)),
    ]

    assert replicas_in(slices) == {
        "10.0.0.1:8080": True,
        "10.0.0.2:8080": True,
        "[fd00::1]:8080": True,
    }


def test_only_the_port_named_http_counts() -> None:
    assert replicas_in([slice_of("a", endpoint("10.0.0.1"), port_name="rpc")]) == {}
    assert replicas_in([{"metadata": {"name": "a"}, "ports": None, "endpoints": None}]) == {}


class ScriptedCluster:
    """A cluster whose lists and watches return the given steps, and then never respond."""

    def __init__(self, *steps: list[Slice] | list[WatchEvent] | ApiError) -> None:
        self.steps = list(steps)
        self.done = asyncio.Event()
        self.lists: list[tuple[str, str | None, Mapping[str, str] | None]] = []

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
    ) -> Listing:
        assert not name
        self.lists.append((kind.plural, namespace, labels))
        step: Any = await self._next()
        return Listing(step, "7")

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        name: str = "",
    ) -> AsyncIterator[WatchEvent]:
        assert not name
        assert (kind.plural, namespace, resource_version) == ("endpointslices", "ns", "7")
        assert labels
        step: Any = await self._next()
        for event in step:
            yield event

    async def _next(self) -> object:
        if not self.steps:
            self.done.set()
            await asyncio.Event().wait()
        step = self.steps.pop(0)
        if isinstance(step, ApiError):
            raise step
        return step


async def yielded(*steps: list[Slice] | list[WatchEvent] | ApiError) -> list[dict[str, bool]]:
    """Return the replicas while the cluster goes through `steps`."""
    cluster = ScriptedCluster(*steps)
    replicas: list[dict[str, bool]] = []

    async def collect() -> None:
        watch = list_and_watch(
            cast("Cluster", cluster),
            ENDPOINT_SLICES,
            "ns",
            service_labels("replicas"),
        )
        async for slices in watch:
            replicas.append(replicas_in(slices.values()))  # noqa: PERF401 (it never ends)

    collecting = asyncio.ensure_future(collect())
    async with asyncio.timeout(10):
        await cluster.done.wait()
    collecting.cancel()
    assert cluster.lists[0] == (
        "endpointslices",
        "ns",
        {"kubernetes.io/service-name": "replicas"},
    )
    return replicas


ONE = slice_of("a", endpoint("10.0.0.1"))
TWO = slice_of("b", endpoint("10.0.0.2"))


async def test_replicas_are_yielded_at_once_and_after_each_change() -> None:
    leaving = slice_of("a", endpoint("10.0.0.1", ready=False, terminating=True))

    assert await yielded(
        [ONE],
        [
            WatchEvent("ADDED", TWO),
            WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
            WatchEvent("MODIFIED", leaving),
            WatchEvent("DELETED", leaving),
        ],
    ) == [
        {"10.0.0.1:8080": True},
        {"10.0.0.1:8080": True, "10.0.0.2:8080": True},
        {"10.0.0.1:8080": False, "10.0.0.2:8080": True},
        {"10.0.0.2:8080": True},
    ]


async def test_a_watch_that_ends_is_followed_by_a_list_that_finds_missed_changes() -> None:
    assert await yielded([ONE, TWO], [], [TWO]) == [
        {"10.0.0.1:8080": True, "10.0.0.2:8080": True},
        {"10.0.0.2:8080": True},
    ]


@pytest.mark.parametrize(
    "error", [Gone(410, "Expired", "too old"), Unreachable(0, "Unreachable", "no route")]
)
async def test_the_last_replicas_stay_while_the_api_server_is_unreachable(error: ApiError) -> None:
    replicas = await yielded([ONE], error, error, [ONE, TWO])

    assert replicas == [
        {"10.0.0.1:8080": True},
        {"10.0.0.1:8080": True, "10.0.0.2:8080": True},
    ]


async def test_after_the_restore_of_a_backup_its_replicas_are_used() -> None:
    cluster = WatchedCluster()

    def put(address: str) -> None:
        found = slice_of("a", endpoint(address))
        found["metadata"] |= {
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "replicas"},
        }
        cluster.put({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **found})

    put("10.0.0.1")
    backup = cluster.copy()
    for last in range(2, 9):
        put(f"10.0.0.{last}")
    replicas: list[dict[str, bool]] = []

    async def collect() -> None:
        watch = list_and_watch(cluster, ENDPOINT_SLICES, "ns", service_labels("replicas"))
        async for slices in watch:
            replicas.append(replicas_in(slices.values()))  # noqa: PERF401 (it never ends)

    collecting = asyncio.ensure_future(collect())
    await until(lambda: bool(replicas))
    cluster.restore(backup)
    await until(lambda: len(replicas) == 2)
    put("10.0.0.9")
    await until(lambda: len(replicas) == 3)
    collecting.cancel()

    assert [list(each) for each in replicas] == [
        ["10.0.0.8:8080"],
        ["10.0.0.1:8080"],
        ["10.0.0.9:8080"],
    ]
