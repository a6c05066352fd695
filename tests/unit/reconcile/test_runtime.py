"""What makes a server due."""

import asyncio
import itertools
from typing import Any

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import KEY, Operator, change_spec, numbers, roll_out, stored
from slotkeeper.kube.cluster import ApiError, NotFound, WatchEvent
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.runtime import RESYNC_SHARDS
from slotkeeper.reconcile.workqueue import RetryError
from wait_until import until

OTHER = Key("default", "other")


async def serving(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server that runs, with nothing due."""
    stored(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    assert operator.due() == []


async def test_a_change_of_a_child_makes_its_server_due(operator: Operator) -> None:
    operator.runtime.enqueue({KEY})

    assert operator.due() == [KEY]


async def test_the_event_of_a_status_just_written_makes_nothing_due(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator)

    operator.runtime.on_server_event(WatchEvent("MODIFIED", cluster.named(LLAMA_SERVERS)["chat"]))

    assert operator.due() == []


async def test_an_edited_server_is_due(cluster: FakeCluster, operator: Operator) -> None:
    await serving(cluster, operator)
    change_spec(cluster, lambda spec: spec.update(replicas=2))

    operator.runtime.on_server_event(WatchEvent("MODIFIED", cluster.named(LLAMA_SERVERS)["chat"]))

    assert operator.due() == [KEY]


async def test_new_numbers_make_a_server_due_and_the_same_ones_do_not(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(busy=2)

    await operator.runtime.poll_demand()
    first = operator.due()
    await operator.act()
    await operator.runtime.poll_demand()

    assert (first, operator.due()) == ([KEY], [])


@pytest.mark.parametrize("queued", [0, 1])
async def test_a_rejected_wake_ends_when_nothing_is_queued_and_is_not_repeated_by_demand(
    cluster: FakeCluster, operator: Operator, queued: int
) -> None:
    await serving(cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    rejection = ApiError(403, "Forbidden", "denied by policy")
    cluster.refuse = lambda verb, item: (
        rejection if (verb, item["kind"]) == ("apply", "Deployment") else None
    )
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)

    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=queued)
    await operator.runtime.poll_demand()

    assert operator.queue.is_failing(KEY)
    assert operator.due() == [KEY] * (1 - queued)


async def test_an_operator_that_was_stopped_writes_nothing_before_it_has_renewed_its_lease(
    cluster: FakeCluster, operator: Operator
) -> None:
    await operator.lease.try_acquire()
    await serving(cluster, operator)
    change_spec(cluster, lambda spec: spec.update(replicas=2))
    await operator.deliver()
    cluster.writes.clear()

    operator.time.passed += 600
    with pytest.raises(RetryError):
        await operator.act()
    written = list(cluster.writes)
    await operator.lease.renew()
    await operator.act()

    assert written == []
    assert Write("apply", "Deployment", "chat-replicas") in cluster.writes


async def test_a_server_is_due_before_other_balancers_have_responded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    stored(cluster, "other", autoscaling={"minReplicas": 0, "maxReplicas": 1})
    await operator.reconcile(OTHER)
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    operator.balancers.slow["10.0.0.2"] = responds = asyncio.Event()
    operator.states[OTHER].demand.track(["10.0.0.2:9090"], None)

    poll = asyncio.ensure_future(operator.runtime.poll_demand())
    await until(lambda: operator.due() == [KEY])
    waiting = not poll.done()
    responds.set()
    await poll

    assert waiting


async def test_a_resync_finds_what_no_watch_has_shown(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    stored(cluster, "other")

    await operator.runtime.resync(None)

    assert {*operator.due()} == {KEY, OTHER}
    assert operator.store.servers == [OTHER]


async def test_a_resync_that_finds_no_change_makes_nothing_due(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator)

    await operator.runtime.resync(None)

    assert operator.due() == []


async def test_every_server_is_in_one_shard_and_no_shard_has_a_third_of_them(
    cluster: FakeCluster, operator: Operator
) -> None:
    for index in range(20):
        stored(cluster, f"chat-{index}")
    await operator.deliver()

    shards = [operator.runtime.resync_shard(index) for index in range(RESYNC_SHARDS)]

    assert sorted(itertools.chain(*shards)) == sorted(operator.store.servers)
    assert max(map(len, shards)) < 20 / 3


async def test_a_resync_without_the_crd_ends_the_operator(
    cluster: FakeCluster, operator: Operator
) -> None:
    error = NotFound(404, "NotFound", "page not found")
    cluster.refuse = lambda verb, _: error if verb == "list" else None

    with pytest.raises(NotFound):
        await operator.runtime.resync(None)


async def test_a_resync_that_fails_is_left_to_the_next_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    error = ApiError(500, "InternalError", "etcd")
    cluster.refuse = lambda verb, _: error if verb == "list" else None

    await operator.runtime.resync(None)

    assert operator.due() == []


async def test_passes_and_decisions_are_counted(cluster: FakeCluster, operator: Operator) -> None:
    def counted(metric: str, **labels: str) -> float | None:
        return operator.registry.get_sample_value(metric, labels)

    manual = {"namespace": "default", "name": "chat", "reason": "Manual"}
    success = {"result": "success"}
    await serving(cluster, operator)
    before = counted("slotkeeper_operator_reconcile_total", **success)
    decisions = counted("slotkeeper_autoscaler_decisions_total", **manual)

    cluster.remove(LLAMA_SERVERS, "default", "chat")
    await operator.reconcile()

    assert before is not None
    assert counted("slotkeeper_operator_reconcile_total", **success) == before + 1
    assert decisions == 1
    assert counted("slotkeeper_autoscaler_decisions_total", **manual) is None
