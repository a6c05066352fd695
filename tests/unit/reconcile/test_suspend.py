"""A server that is suspended runs nothing, says so, and comes back as it was."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, change_spec, condition, roll_out, server_status, stored
from slotkeeper.api.conditions import ConditionType
from slotkeeper.kube.kinds import DEPLOYMENTS


def sizes(cluster: FakeCluster) -> dict[str, int]:
    return {
        name: deployment["spec"]["replicas"]
        for name, deployment in cluster.named(DEPLOYMENTS).items()
    }


@pytest.mark.parametrize("scaled", [{"replicas": 3}, {"autoscaling": {"maxReplicas": 4}}], ids=str)
async def test_a_suspended_server_runs_nothing_and_says_so(scaled: dict[str, Any]) -> None:
    cluster = FakeCluster()
    stored(cluster, suspend=True, **scaled)
    operator = Operator(cluster)

    await operator.reconcile()

    assert sizes(cluster) == {"chat-replicas": 0, "chat-balancer": 0}
    for kind in ConditionType:
        found = condition(cluster, kind)
        reason = "AsExpected" if kind is ConditionType.DEGRADED else "Suspended"
        assert (found["status"], found["reason"]) == ("False", reason)
    assert server_status(cluster)["scaling"]["reason"] == "Suspended"


async def test_it_comes_back_as_large_as_it_is_said_to_be() -> None:
    cluster = FakeCluster()
    stored(cluster, suspend=True, replicas=3)
    operator = Operator(cluster)
    await operator.reconcile()

    change_spec(cluster, lambda spec: spec.update(suspend=False))
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()

    assert sizes(cluster) == {"chat-replicas": 3, "chat-balancer": 1}
    assert condition(cluster, "Ready")["status"] == "True"


async def test_what_ran_and_waited_before_is_not_said_any_more() -> None:
    cluster = FakeCluster()
    stored(cluster)
    operator = Operator(cluster)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()

    change_spec(cluster, lambda spec: spec.update(suspend=True))
    await operator.reconcile()

    assert server_status(cluster)["slots"] == {"busy": 0, "total": 0}
    assert server_status(cluster)["queued"] == 0
