"""Start blockers after a restart: the first pass keeps the published one until it is refuted."""

from collections.abc import Awaitable, Callable

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    KEY,
    FakeTime,
    Operator,
    apply_server,
    demand_report,
    deploy,
    published_blocker,
    roll_out,
    set_pod_status,
)
from pod_statuses import RUNNING, download, download_error, llama_server
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import DEPLOYMENTS

DENIED = ApiError(403, "Forbidden", "denied by policy")
ROLE = Write("apply", "Role", "chat-balancer")
TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30}


async def restart(operator: Operator) -> Operator:
    """Restart the operator: its new process starts with a pass over all servers."""
    assert isinstance(operator.cluster, FakeCluster)
    operator.cluster.writes.clear()
    restarted = Operator(operator.cluster, FakeTime(operator.time.elapsed), operator.balancers)
    await restarted.deliver_events()
    return restarted


async def reject_first_replica(cluster: FakeCluster, operator: Operator) -> None:
    """Let the API server reject the Deployment of a new server."""
    apply_server(cluster)
    cluster.fail(DENIED, "apply", DEPLOYMENTS)
    await operator.run_for(1)
    assert published_blocker(cluster)


async def reject_wake(cluster: FakeCluster, operator: Operator) -> None:
    """Let the API server reject the replica that a request needs."""
    await deploy(cluster, operator, autoscaling=TO_ZERO)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    cluster.fail(DENIED, "apply", DEPLOYMENTS)
    await operator.run_for(1)
    assert published_blocker(cluster)


async def fail_download(cluster: FakeCluster, operator: Operator) -> None:
    """Let the download of the only replica fail."""
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, download(state=download_error("ModelNotFound", "404")))
    await operator.reconcile()
    assert published_blocker(cluster)


@pytest.mark.parametrize("block", [reject_first_replica, reject_wake, fail_download])
async def test_a_blocker_that_persists_is_neither_withdrawn_nor_written_again(
    cluster: FakeCluster,
    operator: Operator,
    block: Callable[[FakeCluster, Operator], Awaitable[None]],
) -> None:
    await block(cluster, operator)
    published = published_blocker(cluster)

    restarted = await restart(operator)
    await restarted.run_for(60)

    assert published_blocker(cluster) == published
    assert cluster.writes == []


async def test_a_rejection_that_ended_meanwhile_is_withdrawn_with_one_write(
    cluster: FakeCluster, operator: Operator
) -> None:
    await reject_first_replica(cluster, operator)
    cluster.recover()

    restarted = await restart(operator)
    await restarted.run_for(60)

    assert published_blocker(cluster) is None
    assert cluster.writes.count(ROLE) == 1


async def test_a_problem_of_a_pod_that_ended_meanwhile_is_withdrawn_with_one_write(
    cluster: FakeCluster, operator: Operator
) -> None:
    await fail_download(cluster, operator)
    set_pod_status(cluster, llama_server(state=RUNNING))

    restarted = await restart(operator)
    await restarted.reconciler.reconcile(KEY)
    kept = published_blocker(cluster)
    await restarted.run_for(60)

    assert kept is not None
    assert published_blocker(cluster) is None
    assert cluster.writes.count(ROLE) == 1


@pytest.mark.parametrize("reachable", [True, False], ids=["idle", "unreachable"])
async def test_a_rejected_wake_without_demand_is_withdrawn_with_one_write(
    cluster: FakeCluster, operator: Operator, reachable: bool
) -> None:
    await reject_wake(cluster, operator)
    operator.balancers.reports.clear()
    if reachable:
        operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)

    restarted = await restart(operator)
    await restarted.run_for(60)

    assert published_blocker(cluster) is None
    assert cluster.writes.count(ROLE) == 1


async def test_a_pass_that_fails_keeps_the_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    await fail_download(cluster, operator)
    set_pod_status(cluster, llama_server(state=RUNNING))
    cluster.fail(ApiError(500, "InternalError", "etcd"), "apply")
    cluster.edit(
        DEPLOYMENTS, "default", "chat-balancer", lambda raw: raw["spec"].update(replicas=7)
    )

    restarted = await restart(operator)
    await restarted.run_for(10)

    assert published_blocker(cluster) is not None


async def test_the_blocker_of_an_earlier_wake_is_withdrawn_with_the_first_report(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, autoscaling=TO_ZERO)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)
    set_pod_status(cluster, download(state=download_error("ModelNotFound", "404")))
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(29)
    published = published_blocker(cluster)
    # The last replica is removed while no operator runs.
    cluster.edit(
        DEPLOYMENTS, "default", "chat-replicas", lambda raw: raw["spec"].update(replicas=0)
    )
    roll_out(cluster)

    restarted = await restart(operator)
    await restarted.run_for(2)

    assert published is not None
    assert published_blocker(cluster) is None
    assert cluster.writes.count(ROLE) == 1
