"""Degraded reports problems that need an action, whether requests are served or not."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, apply_server, condition, deploy, event_reasons, pod_of
from pod_statuses import IMAGE_NOT_FOUND
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, SERVICES


async def deploy_ready(cluster: FakeCluster, operator: Operator, **spec: Any) -> Manifest:
    """Deploy a server that is ready; its replicas' Deployment."""
    await deploy(cluster, operator, **spec)
    assert condition(cluster, "Ready")["status"] == "True"
    return cluster.by_name(DEPLOYMENTS)["chat-replicas"]


def with_missing_image(pod: Manifest) -> Manifest:
    status = {"name": "llama-server", "image": "none:1", "state": IMAGE_NOT_FOUND}
    return pod | {"status": {"containerStatuses": [status]}}


async def test_a_server_without_problems_is_not_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_ready(cluster, operator)

    found = condition(cluster, "Degraded")

    assert (found["status"], found["reason"]) == ("False", "AsExpected")


async def test_a_stuck_rollout_beside_a_ready_replica_is_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    deployment = await deploy_ready(cluster, operator)
    stuck = deployment["status"] | {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    cluster.put(deployment | {"status": stuck})
    cluster.put(with_missing_image(pod_of(deployment, 1, ready=False)))

    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "ImagePullBackOff")
    assert "none:1" in found["message"]
    assert event_reasons(cluster, "Warning") == ["ImagePullBackOff"]


async def test_an_additional_replica_that_does_not_start_is_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    deployment = await deploy_ready(cluster, operator, autoscaling={"maxReplicas": 2})
    cluster.put(with_missing_image(pod_of(deployment, 1, ready=False)))

    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["reason"] == "ImagePullBackOff"


async def test_a_standby_balancer_that_does_not_start_is_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_ready(cluster, operator, balancer={"replicas": 2})
    standby = pod_of(cluster.by_name(DEPLOYMENTS)["chat-balancer"], 1, ready=False)
    cluster.put(with_missing_image(standby))

    await operator.reconcile()

    assert condition(cluster, "BalancerReady")["status"] == "True"
    assert condition(cluster, "Degraded")["reason"] == "ImagePullBackOff"


async def test_an_invalid_spec_is_degraded(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, slots=0)

    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "InvalidSpec")
    assert event_reasons(cluster, "Warning") == ["InvalidSpec"]


async def test_waiting_for_the_children_of_a_previous_server_is_not_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    previous = {"kind": "LlamaServer", "name": "chat", "uid": "previous", "controller": True}
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "chat", "namespace": "default", "ownerReferences": [previous]},
        }
    )

    with pytest.raises(Exception, match="still terminating"):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "WaitingForDeletion"
    assert condition(cluster, "Degraded")["status"] == "False"
    assert cluster.by_name(SERVICES)["chat"]["metadata"]["ownerReferences"] == [previous]


async def test_a_flapping_replica_is_one_event_an_hour(
    cluster: FakeCluster, operator: Operator
) -> None:
    deployment = await deploy_ready(cluster, operator)
    for number in range(101):
        ready = number % 2 == 0
        pod = pod_of(deployment, 0, ready=ready)
        cluster.put(pod if ready else with_missing_image(pod))
        await operator.reconcile()

    assert event_reasons(cluster, "Warning") == ["ImagePullBackOff"]
    operator.time.elapsed += 3600
    cluster.put(with_missing_image(pod_of(deployment, 0, ready=False)))
    await operator.reconcile()
    assert event_reasons(cluster, "Warning") == ["ImagePullBackOff", "ImagePullBackOff"]
