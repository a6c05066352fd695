"""Start blockers: children that the API server rejects, so that no replica can be created."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    published_blocker,
    replica_count,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.kube.cluster import ApiError, Conflict
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, STATEFUL_SETS
from slotkeeper.reconcile.workqueue import RetryError

DENIED = ApiError(403, "Forbidden", "denied by policy `no-gpus`: ask for it")


async def reject_wake(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server at zero, and let the API server reject the replica for a request."""
    await deploy(
        cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30}
    )
    cluster.fail(DENIED, "apply", DEPLOYMENTS)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)


async def test_a_rejected_wake_from_zero_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    await reject_wake(cluster, operator)

    expected = StartBlocker("ApplyRejected", DENIED.message, permanent=True)
    assert published_blocker(cluster) == expected
    assert condition(cluster, "Ready")["message"] == DENIED.message


async def test_a_rejected_write_is_retried_and_reported_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await reject_wake(cluster, operator)
    before, events = server_status(cluster), len(cluster.by_name(EVENTS))
    cluster.writes.clear()

    for _ in range(3):
        operator.time.elapsed += 20
        await operator.runtime.poll_demand()
        with pytest.raises(ApiError):
            await operator.reconcile()

    assert cluster.writes == []
    assert server_status(cluster) == before
    assert len(cluster.by_name(EVENTS)) == events
    [decision] = before["scaling"]["history"]
    assert (decision["from"], decision["to"]) == (0, 1)


async def test_the_start_blocker_is_withdrawn_when_the_write_is_accepted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await reject_wake(cluster, operator)
    cluster.recover()

    await operator.reconcile()

    assert published_blocker(cluster) is None
    assert replica_count(cluster) == 1


async def test_the_start_blocker_is_withdrawn_when_no_replica_is_desired_any_more(
    cluster: FakeCluster, operator: Operator
) -> None:
    await reject_wake(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(1)

    await operator.reconcile()

    assert published_blocker(cluster) is None


async def test_an_unreachable_admission_webhook_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    message = 'Internal error occurred: failed calling webhook "policy.example.com": refused'
    cluster.fail(ApiError(500, "InternalError", message), "apply", DEPLOYMENTS)

    with pytest.raises(ApiError):
        await operator.reconcile()

    expected = StartBlocker("ApplyRejected", message, permanent=True)
    assert published_blocker(cluster) == expected


async def test_an_internal_error_of_the_api_server_is_no_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    error = ApiError(500, "InternalError", "etcdserver: leader changed")
    cluster.fail(error, "apply", DEPLOYMENTS)

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert published_blocker(cluster) is None


async def test_a_rejected_first_replica_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, workers={"count": 1})
    cluster.fail(DENIED, "apply", STATEFUL_SETS)

    with pytest.raises(ApiError):
        await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("ApplyRejected", True)


async def test_the_status_reports_the_rejection_though_the_lease_is_rejected_too(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    cluster.fail(DENIED, "apply")

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "ApplyRejected"


async def test_a_name_conflict_of_the_deployment_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "chat-replicas", "namespace": "default"},
            "spec": {"replicas": 1},
        }
    )
    apply_server(cluster)

    for _ in range(2):
        with pytest.raises((Conflict, RetryError)):
            await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("NameConflict", True)


async def test_a_rejected_change_is_no_start_blocker_while_a_replica_is_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster)
    cluster.fail(DENIED, "apply", DEPLOYMENTS)
    update_spec(cluster, slots=8)

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert published_blocker(cluster) is None
