"""A suspended server runs nothing, reports so, and resumes with its replicas."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.api.conditions import ALWAYS, ConditionType
from slotkeeper.kube.kinds import DEPLOYMENTS


def replica_counts(cluster: FakeCluster) -> dict[str, int]:
    return {
        name: deployment["spec"]["replicas"]
        for name, deployment in cluster.by_name(DEPLOYMENTS).items()
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3},
        {"autoscaling": {"maxReplicas": 4}},
        {"replicas": 3, "promptCache": {"emptyDir": True}, "prime": {"learned": True}},
    ],
    ids=str,
)
async def test_a_suspended_server_runs_nothing_and_reports_so(
    cluster: FakeCluster, operator: Operator, spec: dict[str, Any]
) -> None:
    apply_server(cluster, suspend=True, **spec)

    await operator.reconcile()

    assert replica_counts(cluster) == {"chat-replicas": 0, "chat-balancer": 0}
    for kind in ConditionType if "prime" in spec else ALWAYS:
        found = condition(cluster, kind)
        reason = "AsExpected" if kind is ConditionType.DEGRADED else "Suspended"
        assert (found["status"], found["reason"]) == ("False", reason)
    assert server_status(cluster)["scaling"]["reason"] == "Suspended"


async def test_a_resumed_server_has_the_replicas_of_its_spec(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, suspend=True, replicas=3)
    await operator.reconcile()

    update_spec(cluster, suspend=False)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()

    assert replica_counts(cluster) == {"chat-replicas": 3, "chat-balancer": 1}
    assert condition(cluster, "Ready")["status"] == "True"


async def test_the_demand_from_before_is_not_reported_while_suspended(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    update_spec(cluster, suspend=True)
    await operator.reconcile()

    assert server_status(cluster)["slots"] == {"busy": 0, "total": 0}
    assert server_status(cluster)["queued"] == 0
