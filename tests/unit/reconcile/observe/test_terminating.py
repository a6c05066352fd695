"""A replica that has no node until an older one has terminated."""

from datetime import timedelta

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    START,
    Operator,
    apply_server,
    condition,
    event_messages,
    pod_of,
    published_blocker,
    roll_out,
    set_pod_status,
)
from pod_statuses import unschedulable
from prefetch_jobs import NO_GPU
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.kinds import DEPLOYMENTS

UNTIL = rfc3339(START + timedelta(seconds=30))


async def replace_replica(
    cluster: FakeCluster, operator: Operator, message: str, until: str = UNTIL
) -> None:
    """Let a replica wait for a node, while another one is terminating."""
    apply_server(cluster, gpu={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    old = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], 1, ready=False)
    old["metadata"] |= {"deletionTimestamp": until}
    cluster.put(old)
    set_pod_status(cluster, unschedulable(message))
    await operator.reconcile()


async def test_what_an_older_replica_has_is_released_at_the_end_of_its_grace_period(
    cluster: FakeCluster, operator: Operator
) -> None:
    await replace_replica(cluster, operator, NO_GPU)
    waiting, healthy = condition(cluster, "ReplicasReady"), condition(cluster, "Degraded")
    blocker = published_blocker(cluster)
    await operator.run_for(32)

    assert waiting["reason"] == "Starting"
    assert "until pod chat-replicas-1 has terminated, no node is free: " in waiting["message"]
    assert healthy["status"] == "False"
    assert blocker is None
    found = condition(cluster, "Degraded")
    assert found["reason"] == "Unschedulable"
    assert event_messages(cluster, "Unschedulable") == [found["message"]]
    assert published_blocker(cluster)


@pytest.mark.parametrize(
    ("message", "until"),
    [
        pytest.param("0/1 nodes are available: 1 node had an untolerated taint", UNTIL, id="taint"),
        pytest.param(NO_GPU, rfc3339(START), id="overdue"),
    ],
)
async def test_what_no_pod_releases_is_a_problem_at_once(
    cluster: FakeCluster, operator: Operator, message: str, until: str
) -> None:
    await replace_replica(cluster, operator, message, until)

    assert condition(cluster, "Degraded")["reason"] == "Unschedulable"
