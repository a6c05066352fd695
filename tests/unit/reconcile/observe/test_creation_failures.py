"""A child that cannot create its pods is reported, whichever child it is."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    KEY,
    Operator,
    apply_server,
    condition,
    deploy,
    event_messages,
    published_blocker,
    roll_out,
    update_spec,
)
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, STATEFUL_SETS

QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: limits.cpu=1'


def refuse_pods(cluster: FakeCluster, name: str) -> None:
    """What the Deployment controller reports."""
    found = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}
    status = {"observedGeneration": 1, "conditions": [found]}
    cluster.edit(DEPLOYMENTS, KEY.namespace, name, lambda item: item.update(status=status))


@pytest.mark.parametrize(
    ("name", "kind"), [("chat-replicas", "ReplicasReady"), ("chat-balancer", "BalancerReady")]
)
async def test_a_refused_pod_of_a_deployment_is_reported(
    cluster: FakeCluster, operator: Operator, name: str, kind: str
) -> None:
    apply_server(cluster)
    await operator.reconcile()

    refuse_pods(cluster, name)
    await operator.reconcile()

    found = condition(cluster, kind)
    assert (found["status"], found["reason"]) == ("False", "FailedCreate")
    assert QUOTA in found["message"]
    assert condition(cluster, "Ready")["reason"] == "FailedCreate"
    assert condition(cluster, "Degraded")["reason"] == "FailedCreate"
    assert event_messages(cluster, "FailedCreate") == [QUOTA]


async def test_a_refused_standby_is_reported_while_requests_are_served(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    update_spec(cluster, balancer={"replicas": 2})
    await operator.reconcile()

    refuse_pods(cluster, "chat-balancer")
    await operator.reconcile()

    found = condition(cluster, "BalancerReady")
    assert (found["status"], found["reason"]) == ("True", "BalancerAvailable")
    assert found["message"] == f"1/2 balancers available; {QUOTA}"
    assert condition(cluster, "Degraded")["reason"] == "FailedCreate"
    assert condition(cluster, "Ready")["status"] == "True"


@pytest.mark.parametrize("name", ["chat-replicas", "chat-worker-1"])
async def test_a_refused_pod_of_a_stateful_set_is_reported(
    cluster: FakeCluster, operator: Operator, name: str
) -> None:
    await deploy(cluster, operator, workers={"count": 2}, gpu={"count": 1})

    def lose_pod(item: Any) -> None:
        item["status"] |= {"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0}

    cluster.remove(PODS, KEY.namespace, f"{name}-0")
    cluster.edit(STATEFUL_SETS, KEY.namespace, name, lose_pod)
    await operator.reconcile()
    refused = condition(cluster, "Degraded")
    roll_out(cluster)
    await operator.reconcile()

    assert refused["reason"] == "FailedCreate"
    command = f"kubectl describe --namespace=default statefulsets/{name}"
    assert refused["message"].endswith(command)
    assert "0 of 1 pods" in refused["message"]
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_a_stateful_set_whose_controller_has_not_counted_is_no_failure(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, workers={"count": 1}, gpu={"count": 1})

    update_spec(cluster, replicas=3)
    await operator.reconcile()

    assert condition(cluster, "Degraded")["status"] == "False"


async def test_clients_get_the_reason_while_no_pod_of_a_replica_can_be_created(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()

    refuse_pods(cluster, "chat-replicas")
    await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker
    assert (blocker.reason, blocker.message) == ("FailedCreate", QUOTA)
