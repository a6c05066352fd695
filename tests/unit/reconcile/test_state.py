"""What is remembered of a server ends with the server."""

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
