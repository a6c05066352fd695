"""What makes a server due for a pass."""

import asyncio
import itertools
from typing import Any

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    demand_report,
    deploy,
    server_status,
    update_spec,
)
from slotkeeper.kube.cluster import ApiError, Manifest, NotFound, WatchEvent
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.passes import RESYNC_SHARDS, shard
from slotkeeper.reconcile.workqueue import RetryError
from wait_until import until

OTHER = Key("default", "other")


async def deploy_idle(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server; afterwards nothing is due."""
    await deploy(cluster, operator, **spec)
    assert operator.due_keys() == []


async def test_a_change_of_a_child_makes_its_server_due(operator: Operator) -> None:
    operator.runtime.enqueue({KEY})

    assert operator.due_keys() == [KEY]


async def test_the_event_of_a_written_status_makes_nothing_due(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator)

    operator.runtime.on_server_event(WatchEvent("MODIFIED", cluster.by_name(LLAMA_SERVERS)["chat"]))

    assert operator.due_keys() == []


async def test_a_changed_spec_makes_its_server_due(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator)
    update_spec(cluster, replicas=2)

    operator.runtime.on_server_event(WatchEvent("MODIFIED", cluster.by_name(LLAMA_SERVERS)["chat"]))

    assert operator.due_keys() == [KEY]


async def test_changed_demand_makes_a_server_due_and_the_same_demand_does_not(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=2)

    await operator.runtime.poll_demand()
    first = operator.due_keys()
    await operator.run_passes()
    await operator.runtime.poll_demand()

    assert (first, operator.due_keys()) == ([KEY], [])


@pytest.mark.parametrize("queued", [0, 1])
async def test_a_rejected_wake_from_zero_is_not_repeated_by_demand_and_ends_without_it(
    cluster: FakeCluster, operator: Operator, queued: int
) -> None:
    await deploy_idle(cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    cluster.fail(ApiError(403, "Forbidden", "denied by policy"), "apply", DEPLOYMENTS)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)

    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=queued)
    await operator.runtime.poll_demand()

    assert operator.queue.is_failing(KEY)
    assert operator.due_keys() == [KEY] * (1 - queued)


async def test_a_process_that_was_stopped_writes_nothing_until_it_has_renewed_its_lease(
    cluster: FakeCluster, operator: Operator
) -> None:
    await operator.lease.try_acquire()
    await deploy_idle(cluster, operator)
    update_spec(cluster, replicas=2)
    await operator.deliver_events()
    cluster.writes.clear()

    operator.time.elapsed += 600
    with pytest.raises(RetryError):
        await operator.run_passes()
    written = list(cluster.writes)
    await operator.lease.renew()
    await operator.run_passes()

    assert written == []
    assert Write("apply", "Deployment", "chat-replicas") in cluster.writes


async def test_a_server_is_due_before_the_balancers_of_others_have_responded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    apply_server(cluster, "other", autoscaling={"minReplicas": 0, "maxReplicas": 1})
    await operator.reconcile(OTHER)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    operator.balancers.delayed["10.0.0.2"] = responds = asyncio.Event()
    operator.states[OTHER].demand.track(["10.0.0.2:9090"], None)

    poll = asyncio.ensure_future(operator.runtime.poll_demand())
    await until(lambda: operator.due_keys() == [KEY])
    is_polling = not poll.done()
    responds.set()
    await poll

    assert is_polling


async def test_a_resync_finds_what_no_watch_has_shown(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    apply_server(cluster, "other")

    await operator.runtime.resync()

    assert {*operator.due_keys()} == {KEY, OTHER}
    assert operator.store.keys == [OTHER]


async def test_a_namespace_that_cannot_be_listed_delays_no_other(
    cluster: FakeCluster, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    def forbid_gone(_: str, listed: Manifest) -> ApiError | None:
        is_gone = listed.get("namespace") == "gone"
        return ApiError(403, "Forbidden", "llamaservers is forbidden") if is_gone else None

    apply_server(cluster, "chat")
    cluster.inject_error = forbid_gone

    await operator.runtime.list_servers(["gone", "default", "empty"])
    await operator.runtime.resync(["gone", "default"])

    assert operator.due_keys() == [KEY]
    assert "llamaservers is forbidden" in caplog.text


async def test_a_resync_without_changes_makes_nothing_due(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_idle(cluster, operator)

    await operator.runtime.resync()

    assert operator.due_keys() == []


async def test_every_server_is_in_one_shard_and_no_shard_has_a_third_of_them(
    cluster: FakeCluster, operator: Operator
) -> None:
    for index in range(20):
        apply_server(cluster, f"chat-{index}")
    await operator.deliver_events()

    shards = [shard(operator.store, index) for index in range(RESYNC_SHARDS)]

    assert sorted(itertools.chain(*shards)) == sorted(operator.store.keys)
    assert max(map(len, shards)) < 20 / 3


async def test_a_resync_without_the_crd_ends_the_operator(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(NotFound(404, "NotFound", "page not found"), "list")

    with pytest.raises(NotFound):
        await operator.runtime.resync()


async def test_a_failed_resync_is_left_to_the_next_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(ApiError(500, "InternalError", "etcd"), "list")

    await operator.runtime.resync()

    assert operator.due_keys() == []


async def test_passes_and_decisions_are_counted(cluster: FakeCluster, operator: Operator) -> None:
    def counted(metric: str, **labels: str) -> float | None:
        return operator.registry.get_sample_value(metric, labels)

    manual = {"namespace": "default", "name": "chat", "reason": "Manual"}
    success = {"result": "success"}
    await deploy_idle(cluster, operator)
    before = counted("slotkeeper_operator_reconcile_total", **success)
    decisions = counted("slotkeeper_autoscaler_decisions_total", **manual)

    cluster.remove(LLAMA_SERVERS, "default", "chat")
    await operator.reconcile()

    assert before is not None
    assert counted("slotkeeper_operator_reconcile_total", **success) == before + 1
    assert decisions == 1
    assert counted("slotkeeper_autoscaler_decisions_total", **manual) is None


async def test_a_server_that_always_fails_does_not_affect_the_passes_of_another(
    cluster: FakeCluster, operator: Operator
) -> None:
    autoscaling = {"maxReplicas": 3}
    await deploy_idle(cluster, operator, slots=4, autoscaling=autoscaling)
    alone = FakeCluster()
    alone_operator = Operator(alone)
    await deploy_idle(alone, alone_operator, slots=4, autoscaling=autoscaling)

    def inject(_: str, manifest: Manifest) -> ApiError | None:
        is_others = manifest.get("metadata", {}).get("name", "").startswith(OTHER.name)
        return ApiError(500, "InternalError", "etcd") if is_others else None

    apply_server(cluster, OTHER.name)
    cluster.inject_error = inject
    for run in (operator, alone_operator):
        run.passes.clear()
        run.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
        await run.run_for(30)
    update_spec(cluster, slots=8)
    update_spec(alone, slots=8)
    await operator.run_for(30)
    await alone_operator.run_for(30)

    assert operator.queue.is_failing(OTHER)
    assert 3 <= operator.passes.count(OTHER) <= 7
    assert [key for key in operator.passes if key == KEY] == alone_operator.passes
    written = [write for write in cluster.writes if not write.name.startswith(OTHER.name)]
    assert written == alone.writes
    assert server_status(cluster) == server_status(alone)
