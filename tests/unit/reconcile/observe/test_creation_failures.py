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
    put_replica_set,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS

QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: limits.cpu=1'


def refuse_pods(cluster: FakeCluster, name: str) -> None:
    """What the ReplicaSet of the current template reports."""
    put_replica_set(cluster, cluster.by_name(DEPLOYMENTS)[name], QUOTA)


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


def report_old_failure(cluster: FakeCluster, name: str) -> None:
    """What the Deployment controller reports while pods are refused: the first message."""
    found = {"type": "ReplicaFailure", "status": "True", "message": "requests: limits.cpu=4"}

    def report(item: Any) -> None:
        generation = item["metadata"]["generation"]
        status = {"observedGeneration": generation, "conditions": [found]}
        item["status"] = item.get("status", {}) | status

    cluster.edit(DEPLOYMENTS, KEY.namespace, name, report)


@pytest.mark.parametrize(
    ("name", "kind"), [("chat-replicas", "ReplicasReady"), ("chat-balancer", "BalancerReady")]
)
async def test_the_failure_of_the_current_template_is_reported_not_that_of_an_old_spec(
    cluster: FakeCluster, operator: Operator, name: str, kind: str
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    put_replica_set(cluster, cluster.by_name(DEPLOYMENTS)[name], "requests: limits.cpu=4")
    report_old_failure(cluster, name)
    await operator.reconcile()
    before = condition(cluster, kind)["message"]

    limits = {"limits": {"cpu": 1, "memory": "1Gi"}}
    balancer = {"replicas": 1, "resources": limits}
    update_spec(cluster, resources=limits, balancer=balancer)
    await operator.reconcile()
    # Its controller has not created the new one yet: nothing was refused.
    between = condition(cluster, kind)["reason"]
    refuse_pods(cluster, name)
    report_old_failure(cluster, name)
    await operator.reconcile()

    assert "limits.cpu=4" in before
    assert between in {"Starting", "Pending"}
    found = condition(cluster, kind)
    assert found["reason"] == "FailedCreate"
    assert QUOTA in found["message"]
    assert "limits.cpu=4" not in str(server_status(cluster)["conditions"])


async def test_a_replica_set_with_all_its_pods_has_no_failure(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    refuse_pods(cluster, "chat-replicas")
    replica_set = cluster.by_name(REPLICA_SETS)["chat-replicas"]
    # Its controller removes the condition later.
    cluster.put(replica_set | {"status": replica_set["status"] | {"replicas": 1}})
    report_old_failure(cluster, "chat-replicas")
    await operator.reconcile()

    assert condition(cluster, "Degraded")["status"] == "False"
    assert condition(cluster, "ReplicasReady")["message"] == "1 of 1 replicas ready"


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
