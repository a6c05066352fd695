"""The objects for a gateway's batches, and what is reported of their pod."""

from typing import Any

from fake_cluster import FakeCluster
from gateway_harness import (
    apply_gateway,
    deploy_gateway,
    gateway_children,
    gateway_condition,
    update_gateway,
)
from operator_harness import KEY, Operator, pod_of, roll_out
from slotkeeper.kube.kinds import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS

BATCHES: dict[str, Any] = {"storage": {"size": "1Gi"}}
FOR_BATCHES = {
    (kind, "llm-batches")
    for kind in ("Deployment", "Service", "NetworkPolicy", "PersistentVolumeClaim")
}


async def test_batches_have_objects_of_their_own(cluster: FakeCluster, operator: Operator) -> None:
    apply_gateway(cluster, batches=BATCHES)
    await operator.reconcile_gateways()

    assert gateway_children(cluster) >= FOR_BATCHES


async def test_a_removed_field_deletes_them_with_the_claim(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator, batches=BATCHES)
    update_gateway(cluster, batches=None)
    await operator.reconcile_gateways()

    assert not gateway_children(cluster) & FOR_BATCHES
    assert gateway_condition(cluster, "Ready")[0] == "True"


async def test_a_claim_of_the_user_is_not_touched(cluster: FakeCluster, operator: Operator) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "mine", "namespace": KEY.namespace},
        "spec": {},
    }
    cluster.put(claim)
    await deploy_gateway(cluster, operator, batches={"storage": {"claimName": "mine"}})
    update_gateway(cluster, batches=None)
    await operator.reconcile_gateways()

    assert cluster.by_name(PERSISTENT_VOLUME_CLAIMS).keys() == {"mine"}


async def test_without_a_change_nothing_is_written(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator, batches=BATCHES)
    await operator.reconcile_gateways()

    assert cluster.writes == []


async def test_a_pod_for_batches_that_does_not_start_is_a_problem_of_batches_only(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_gateway(cluster, operator, batches=BATCHES)
    assert gateway_condition(cluster, "Degraded")[0] == "False"
    deployment = cluster.by_name(DEPLOYMENTS)["llm-batches"]
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "pod has unbound immediate PersistentVolumeClaims",
    }
    unschedulable = {"conditions": [condition]}
    cluster.put(pod_of(deployment, ready=False) | {"status": unschedulable})
    await operator.reconcile_gateways()

    status, reason, message = gateway_condition(cluster, "Degraded")
    assert (status, reason) == ("True", "Unschedulable")
    assert message.startswith("batches: ")
    assert "unbound immediate PersistentVolumeClaims" in message
    assert gateway_condition(cluster, "Ready")[0] == "True"

    roll_out(cluster)
    await operator.reconcile_gateways()
    assert gateway_condition(cluster, "Degraded")[0] == "False"
