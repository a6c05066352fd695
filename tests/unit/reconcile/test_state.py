"""What is remembered of a server ends with the server."""

from collections.abc import Awaitable, Callable

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    demand_report,
    deploy,
    event_reasons,
    server_status,
)
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import EVENTS, SERVICES
from slotkeeper.reconcile.write.conflicts import CONFLICT_AFTER


def remove_all(cluster: FakeCluster) -> None:
    """Delete the server, and all its children and pods."""
    for kind, namespace, name in list(cluster.objects):
        if kind != EVENTS:
            cluster.remove(kind, namespace, name)


async def deploy_with_records(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server with a field conflict, and a scale-up that could not be reported yet."""
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    for _ in range(CONFLICT_AFTER):
        cluster.remove(SERVICES, "default", "chat")
        await operator.reconcile()
    cluster.fail(ApiError(500, "InternalError", "etcd"), "patch_status")
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    await operator.run_for(2)
    cluster.recover()
    state = operator.state
    assert state.unreported
    assert state.demand.changes
    assert len(state.conflicts)
    assert operator.queue.is_failing(KEY)


async def test_a_recreated_server_starts_without_the_records_of_its_predecessor(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_records(cluster, operator)
    before = len(event_reasons(cluster))
    remove_all(cluster)
    apply_server(cluster, autoscaling={"maxReplicas": 3})
    operator.balancers.reports.clear()
    operator.relist()

    await operator.reconcile()

    assert event_reasons(cluster)[before:] == []
    assert server_status(cluster)["scaling"]["history"] == []
    assert server_status(cluster)["scaling"]["desiredReplicas"] == 1
    state = operator.state
    assert state.unreported is None
    assert state.demand.changes == ()
    assert len(state.conflicts) == 0


async def show_deletion(operator: Operator) -> None:
    """The watch shows that the server is deleted."""
    await operator.reconcile()


async def list_without_server(operator: Operator) -> None:
    """The watch loses the deletion, and a listing shows it."""
    operator.relist()
    await operator.reconcile()


async def write_status_of_deleted(operator: Operator) -> None:
    """No watch shows the deletion before a status is written."""
    operator.time.elapsed += 10
    await operator.runtime.poll_demand()
    await operator.run_passes()


NOTICES = [show_deletion, list_without_server, write_status_of_deleted]


@pytest.mark.parametrize("notice", NOTICES)
async def test_nothing_of_a_deleted_server_remains(
    cluster: FakeCluster, operator: Operator, notice: Callable[[Operator], Awaitable[None]]
) -> None:
    await deploy_with_records(cluster, operator)
    remove_all(cluster)

    await notice(operator)
    record = operator.states.find(KEY)
    await show_everything(operator)

    assert record is None
    assert_nothing_remains(operator)


async def test_nothing_of_a_deleted_server_remains_whose_passes_failed(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "chat", "namespace": "default"},
        }
    )
    apply_server(cluster)
    await operator.run_for(60)
    assert operator.queue.is_failing(KEY)
    remove_all(cluster)

    await operator.reconcile()
    await show_everything(operator)

    assert_nothing_remains(operator)


async def show_everything(operator: Operator) -> None:
    """Let watches show the deletion of all children, timers end, and listings replace the rest."""
    await operator.run_for(600)
    operator.relist()
    await operator.run_for(1)


def assert_nothing_remains(operator: Operator) -> None:
    """Assert that no part of the operator contains anything of any server."""
    assert operator.states._states == {}
    store = operator.store
    assert (store._entries, store._deleted_by_others) == ({}, {})
    assert not any(store._owners.values())
    assert not any(store._deleted.values())
    queue = operator.queue
    assert not queue._due
    assert not queue._debounced
    assert not queue._debouncing
    assert not queue._active
    assert not queue._retries
    assert operator.timers == []
    labels = [sample.labels for each in operator.registry.collect() for sample in each.samples]
    assert [each for each in labels if "name" in each] == []
