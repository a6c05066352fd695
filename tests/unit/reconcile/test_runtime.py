"""What wakes whom."""

import asyncio
import itertools
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster, Write
from operator_harness import KEY, Operator, change_spec, numbers, roll_out, stored
from slotkeeper.kube.cluster import ApiError, NotFound, WatchEvent
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.leader_election import LeaderElection, LeaseRef
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.runtime import RESYNC_SHARDS, Runtime
from slotkeeper.reconcile.workqueue import RetryError, WorkQueue
from wait_until import until


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def shell(cluster: FakeCluster, operator: Operator, registry: CollectorRegistry) -> Runtime:
    queue = WorkQueue(Random(1), later=lambda _, do: do())
    clock = operator.time.clock
    return Runtime(
        cluster,
        operator.store,
        operator.reconciler,
        operator.demand,
        queue,
        LeaderElection(cluster, LeaseRef("system", "a"), clock),
        Metrics(registry, lambda: len(queue)),
        clock.monotonic,
    )


async def ready(cluster: FakeCluster, operator: Operator, shell: Runtime, **spec: Any) -> None:
    stored(cluster, **spec)
    await operator.deliver()
    await shell.work(KEY)
    roll_out(cluster)
    await operator.deliver()
    await shell.work(KEY)
    shell.queue._high_priority.clear()


async def test_news_of_a_child_wake_its_server(shell: Runtime) -> None:
    shell.enqueue({KEY})

    assert len(shell.queue) == 1


async def test_the_event_of_a_status_just_written_wakes_nobody(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell)

    shell.on_server_event(WatchEvent("MODIFIED", cluster.named(LLAMA_SERVERS)["chat"]))

    assert len(shell.queue) == 0


async def test_an_edited_server_is_woken(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell)
    change_spec(cluster, lambda spec: spec.update(replicas=2))

    shell.on_server_event(WatchEvent("MODIFIED", cluster.named(LLAMA_SERVERS)["chat"]))

    assert len(shell.queue) == 1


async def test_new_numbers_wake_a_server_and_the_same_ones_do_not(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell)
    operator.balancers.says["10.0.0.1"] = numbers(busy=2)

    await shell.poll_demand()
    woken = len(shell.queue)
    await shell.work(KEY)
    shell.queue._low_priority.clear()
    await shell.poll_demand()

    assert (woken, len(shell.queue)) == (1, 0)


@pytest.mark.parametrize("asked", [0, 1])
async def test_a_wake_that_was_refused_is_given_up_at_once_and_not_tried_by_numbers(
    cluster: FakeCluster, operator: Operator, shell: Runtime, asked: int
) -> None:
    await ready(cluster, operator, shell, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    refusal = ApiError(403, "Forbidden", "denied by policy")
    cluster.refuse = lambda verb, item: (
        refusal if (verb, item["kind"]) == ("apply", "Deployment") else None
    )
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    shell.queue._later = lambda *_: None
    await shell.poll_demand()
    await shell.queue._try(shell.work, KEY)
    shell.queue._high_priority.clear()

    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=asked)
    await shell.poll_demand()

    assert shell.queue.is_failing(KEY)
    assert len(shell.queue._high_priority) == 1 - asked


async def test_an_operator_that_stood_still_writes_nothing_before_it_has_renewed_its_lease(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await shell.lease.try_acquire()
    await ready(cluster, operator, shell)
    change_spec(cluster, lambda spec: spec.update(replicas=2))
    await operator.deliver()
    cluster.writes.clear()

    operator.time.passed += 600
    with pytest.raises(RetryError):
        await shell.work(KEY)
    written = list(cluster.writes)
    await shell.lease.renew()
    await shell.work(KEY)

    assert written == []
    assert Write("apply", "Deployment", "chat-replicas") in cluster.writes


async def test_a_server_is_woken_before_the_others_have_answered(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    operator.balancers.slow["10.0.0.2"] = answered = asyncio.Event()
    operator.demand.track(Key("default", "other"), ["10.0.0.2:9090"])

    look = asyncio.ensure_future(shell.poll_demand())
    await until(lambda: KEY in shell.queue._high_priority)
    looking = not look.done()
    answered.set()
    await look

    assert looking


async def test_a_resync_finds_what_no_watch_has_shown(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    stored(cluster, "other")

    await shell.resync(None)

    assert set(shell.queue._high_priority) == {KEY, Key("default", "other")}
    assert shell.store.servers == [Key("default", "other")]


async def test_a_resync_without_news_wakes_nobody(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    await ready(cluster, operator, shell)

    await shell.resync(None)

    assert len(shell.queue) == 0


async def test_every_server_has_its_turn_and_no_two_thirds_at_once(
    cluster: FakeCluster, operator: Operator, shell: Runtime
) -> None:
    for index in range(20):
        stored(cluster, f"chat-{index}")
    await operator.deliver()

    shares = [shell.resync_shard(index) for index in range(RESYNC_SHARDS)]

    assert sorted(itertools.chain(*shares)) == sorted(shell.store.servers)
    assert max(map(len, shares)) < 20 / 3


async def test_a_resync_without_a_crd_ends_the_operator(
    cluster: FakeCluster, shell: Runtime
) -> None:
    refusal = NotFound(404, "NotFound", "page not found")
    cluster.refuse = lambda verb, _: refusal if verb == "list" else None

    with pytest.raises(NotFound):
        await shell.resync(None)


async def test_a_resync_that_fails_is_tried_next_time(cluster: FakeCluster, shell: Runtime) -> None:
    refusal = ApiError(500, "InternalError", "etcd")
    cluster.refuse = lambda verb, _: refusal if verb == "list" else None

    await shell.resync(None)

    assert len(shell.queue) == 0


async def test_reconciles_are_counted(
    cluster: FakeCluster, operator: Operator, shell: Runtime, registry: CollectorRegistry
) -> None:
    await ready(cluster, operator, shell)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    fixed = {"namespace": "default", "name": "chat", "reason": "Manual"}
    decisions = registry.get_sample_value("slotkeeper_autoscaler_decisions_total", fixed)

    await operator.deliver()
    await shell.work(KEY)
    await shell.work(KEY)

    counted = registry.get_sample_value(
        "slotkeeper_operator_reconcile_total", {"result": "success"}
    )
    gone = registry.get_sample_value("slotkeeper_autoscaler_decisions_total", fixed)
    assert (decisions, counted, gone) == (1, 4, None)
