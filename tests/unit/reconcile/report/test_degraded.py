"""Degraded says what somebody has to mend, whether requests are served or not."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, condition, pod_of, roll_out, stored
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, SERVICES


async def serving(cluster: FakeCluster, operator: Operator, **spec: Any) -> Manifest:
    """A server that serves; its replicas' Deployment."""
    stored(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    assert condition(cluster, "Ready")["status"] == "True"
    return cluster.named(DEPLOYMENTS)["chat-replicas"]


def with_image_missing(pod: Manifest) -> Manifest:
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    status = {"name": "llama-server", "image": "none:1", "state": {"waiting": waiting}}
    return pod | {"status": {"containerStatuses": [status]}}


def warnings(cluster: FakeCluster) -> list[str]:
    events = cluster.named(EVENTS).values()
    return [event["reason"] for event in events if event["type"] == "Warning"]


async def test_a_server_that_is_well_is_not_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator)

    found = condition(cluster, "Degraded")

    assert (found["status"], found["reason"]) == ("False", "AsExpected")


async def test_a_rollout_that_is_stuck_beside_a_replica_that_serves(
    cluster: FakeCluster, operator: Operator
) -> None:
    deployment = await serving(cluster, operator)
    stuck = deployment["status"] | {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    cluster.put(deployment | {"status": stuck})
    cluster.put(with_image_missing(pod_of(deployment, 1, ready=False)))

    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "ImagePullBackOff")
    assert "none:1" in found["message"]
    assert warnings(cluster) == ["ImagePullBackOff"]


async def test_a_replica_more_that_does_not_start(cluster: FakeCluster, operator: Operator) -> None:
    deployment = await serving(cluster, operator, autoscaling={"maxReplicas": 2})
    cluster.put(with_image_missing(pod_of(deployment, 1, ready=False)))

    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["reason"] == "ImagePullBackOff"


async def test_a_standby_balancer_that_does_not_start(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serving(cluster, operator, balancer={"replicas": 2})
    standby = pod_of(cluster.named(DEPLOYMENTS)["chat-balancer"], 1, ready=False)
    cluster.put(with_image_missing(standby))

    await operator.reconcile()

    assert condition(cluster, "BalancerReady")["status"] == "True"
    assert condition(cluster, "Degraded")["reason"] == "ImagePullBackOff"


async def test_an_invalid_spec(cluster: FakeCluster, operator: Operator) -> None:
    stored(cluster, slots=0)

    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "InvalidSpec")
    assert warnings(cluster) == ["InvalidSpec"]


async def test_waiting_for_an_older_servers_children_is_no_trouble(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    older = {"kind": "LlamaServer", "name": "chat", "uid": "older", "controller": True}
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "chat", "namespace": "default", "ownerReferences": [older]},
        }
    )

    with pytest.raises(Exception, match="still terminating"):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "WaitingForDeletion"
    assert condition(cluster, "Degraded")["status"] == "False"
    assert cluster.named(SERVICES)["chat"]["metadata"]["ownerReferences"] == [older]


async def test_a_hundred_looks_at_a_flapping_replica_are_one_event_an_hour(
    cluster: FakeCluster, operator: Operator
) -> None:
    deployment = await serving(cluster, operator)
    for look in range(101):
        pod = pod_of(deployment, 0, ready=look % 2 == 0)
        cluster.put(pod if look % 2 == 0 else with_image_missing(pod))
        await operator.reconcile()

    assert warnings(cluster) == ["ImagePullBackOff"]
    operator.time.passed += 3600
    cluster.put(with_image_missing(pod_of(deployment, 0, ready=False)))
    await operator.reconcile()
    assert warnings(cluster) == ["ImagePullBackOff", "ImagePullBackOff"]
