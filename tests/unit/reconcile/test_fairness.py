"""One tenant's servers, however many, do not delay another tenant's."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from fake_cluster import FakeCluster
from llamaservers import raw_server
from operator_harness import START, Operator, deploy, update_spec
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.demand.tracker import ServerDemand
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.runtime import MAX_STATUS_REFRESHES, SLICE
from slotkeeper.reconcile.state import States
from slotkeeper.reconcile.workqueue import WorkQueue
from slotkeeper.scaling.sample import Sample
from virtual_loop import run_virtual

CROWD = [Key("crowd", f"server-{index}") for index in range(1000)]
STRANGER = Key("quiet", "chat")

BUSY = ServerDemand(Sample(0.0, 3, 2, 0.0, 5, 4))

REQUEST_SECONDS = 0.02
"""Of each request to the API server: a busy one."""


class SlowCluster(FakeCluster):
    """Its responses take time; so do those of a webhook that is called for some namespaces only."""

    delays: dict[str, float] = {}  # noqa: RUF012 (set by tests)

    @override
    async def get(self, *arguments: Any) -> Manifest | None:
        await asyncio.sleep(REQUEST_SECONDS)
        return await super().get(*arguments)

    @override
    async def create(self, manifest: Manifest) -> Manifest:
        await asyncio.sleep(REQUEST_SECONDS)
        return await super().create(manifest)

    @override
    async def apply(self, manifest: Manifest) -> Manifest:
        await asyncio.sleep(self.delays.get(manifest["metadata"]["namespace"], REQUEST_SECONDS))
        return await super().apply(manifest)

    @override
    async def patch_status(self, manifest: Manifest) -> Manifest:
        await asyncio.sleep(REQUEST_SECONDS)
        return await super().patch_status(manifest)


def create(cluster: FakeCluster, operator: Operator, key: Key, **spec: Any) -> None:
    """A user creates a server, and the watch shows it."""
    raw = raw_server(key.name, **{"balancer": {"replicas": 1}, **spec})
    raw["metadata"]["namespace"] = key.namespace
    for changed in operator.store.put(cluster.put(raw)):
        operator.queue.add(changed)


async def seconds_until_reported(cluster: SlowCluster) -> float:
    """Create the crowd's servers, and a second later the stranger's. Return the seconds until all
    of its children are written and its status is."""
    operator = Operator(cluster)
    loop = asyncio.get_running_loop()
    for key in CROWD:
        create(cluster, operator, key)
    loop.call_at(1.0, lambda: create(cluster, operator, STRANGER))
    reported = asyncio.Event()

    async def work(key: Key) -> None:
        await operator.runtime.work(key)
        if "status" in cluster.objects.get((LLAMA_SERVERS, *STRANGER), {}):
            reported.set()

    working = asyncio.create_task(operator.queue.run(work))
    with suppress(TimeoutError):
        async with asyncio.timeout_at(60.0):
            await reported.wait()
    working.cancel()
    return loop.time() - 1.0


@pytest.mark.parametrize("crowd_seconds", [REQUEST_SECONDS, 10.0], ids=["busy", "hanging"])
def test_a_server_is_reconciled_within_a_second_beside_a_thousand_of_another_tenant(
    crowd_seconds: float,
) -> None:
    cluster = SlowCluster()
    cluster.delays = {"crowd": crowd_seconds}

    assert run_virtual(seconds_until_reported(cluster)) < 1


def keys(namespace: str, count: int) -> list[Key]:
    return [Key(namespace, f"server-{index}") for index in range(count)]


def take_all(queue: WorkQueue) -> list[Key]:
    """Take all keys, one after the other."""
    taken = []
    while key := queue.take():
        taken.append(key)
        queue.done(key)
    return taken


def test_namespaces_take_turns() -> None:
    queue = WorkQueue(States(lambda: 0.0), Random(1), lambda *_: None)
    for key in [*keys("a", 4), *keys("b", 2), *keys("c", 1)]:
        queue.add(key)

    taken = take_all(queue)

    assert [key.namespace for key in taken] == ["a", "b", "c", "a", "b", "a", "a"]


def test_one_namespace_has_half_of_the_workers_and_each_next_one_its_share() -> None:
    queue = WorkQueue(States(lambda: 0.0), Random(1), lambda *_: None, workers=16)
    active = Counter[str]()

    for namespace in ("a", "b", "c"):
        for key in keys(namespace, 100):
            queue.add(key)
        while taken := queue.take():
            active[taken.namespace] += 1

    assert active == {"a": 8, "b": 4, "c": 2}


async def test_a_schedule_is_searched_once_until_the_next_one_starts(
    cluster: FakeCluster, operator: Operator
) -> None:
    schedules = [{"cron": "*/5 * * * *", "minReplicas": 2}, {"cron": "0 8 * * *", "minReplicas": 1}]
    await deploy(cluster, operator, autoscaling={"maxReplicas": 3, "schedules": schedules})
    seconds = [START + timedelta(seconds=second) for second in range(600)]

    policies = [*map(operator.state.policy_at, seconds)]
    operator.time.elapsed = 599
    await operator.reconcile()
    same_spec = operator.state.policy_at(seconds[599])
    update_spec(cluster, slots=8)
    await operator.reconcile()
    other_spec = operator.state.policy_at(seconds[599])

    assert len({*map(id, policies)}) == 2
    assert policies[299] is policies[0]
    assert policies[300] is policies[599] is same_spec
    assert other_spec is not same_spec


async def test_checking_many_servers_lets_other_work_go_on(
    cluster: FakeCluster, operator: Operator
) -> None:
    for key in CROWD[:300]:
        create(cluster, operator, key, autoscaling={"maxReplicas": 3})
        await operator.runtime.work(key)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count_turns())
    await operator.runtime.poll_demand()
    counting.cancel()

    assert turns >= 300 / SLICE


async def test_changed_numbers_bring_a_bounded_number_of_passes_in_turns(
    cluster: FakeCluster, operator: Operator
) -> None:
    for key in [*CROWD[:200], STRANGER]:
        create(cluster, operator, key)
        await operator.runtime.work(key)
        await operator.runtime.work(key)
        operator.states[key].demand.track(["10.0.0.1:9090"], None)
        operator.states[key].demand.update(BUSY)
    take_all(operator.queue)

    refreshed = []
    for _ in range(5):
        await operator.runtime.poll_demand()
        operator.due_keys()
        refreshed.append(take_all(operator.queue))

    assert [len(keys) for keys in refreshed[:4]] == [MAX_STATUS_REFRESHES] * 4
    assert STRANGER in refreshed[0]
    assert {*CROWD[:200]} <= {key for keys in refreshed for key in keys}


async def test_many_downloads_bring_a_bounded_number_of_passes_in_turns(
    cluster: FakeCluster, operator: Operator
) -> None:
    for key in [*CROWD[:200], STRANGER]:
        create(cluster, operator, key)
        await operator.runtime.work(key)
        await operator.runtime.work(key)
        operator.states[key].download.track({"pod": "10.0.0.1:9091"}, 0.0)
        progress = ProgressReport(phase="Downloading", downloaded_bytes=1)
        operator.states[key].download.update("pod", progress, 0.0)
    take_all(operator.queue)

    refreshed = []
    for _ in range(5):
        await operator.runtime.poll_demand()
        operator.due_keys()
        refreshed.append(take_all(operator.queue))

    assert [len(keys) for keys in refreshed[:4]] == [MAX_STATUS_REFRESHES] * 4
    assert STRANGER in refreshed[0]
