"""Which pods are believed: those of the server's own Deployments and StatefulSets."""

from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    KEY,
    Operator,
    condition,
    deploy,
    pod_of,
    server_status,
)
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS

FOREIGN_HOST = "10.6.6.6"


def without_owner(pod: Any, _: Manifest) -> None:
    del pod["metadata"]["ownerReferences"]


def owned_by_the_deployment(pod: Any, deployment: Manifest) -> None:
    # No Deployment owns pods, and the user who creates a pod decides what its references are.
    pod["metadata"]["ownerReferences"][0]["uid"] = deployment["metadata"]["name"]


def owned_by_another_replica_set(pod: Any, _: Manifest) -> None:
    pod["metadata"]["ownerReferences"][0]["uid"] = "foreign"


def owned_and_not_controlled(pod: Any, _: Manifest) -> None:
    pod["metadata"]["ownerReferences"][0]["controller"] = False


FORGERIES = [
    without_owner,
    owned_by_the_deployment,
    owned_by_another_replica_set,
    owned_and_not_controlled,
]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_pod_is_not_polled_on_account_of_its_labels(
    cluster: FakeCluster, operator: Operator, forge: Callable[[Any, Manifest], None]
) -> None:
    await deploy(cluster, operator)
    deployment = cluster.by_name(DEPLOYMENTS)["chat-balancer"]
    foreign = pod_of(deployment, 7)
    foreign["status"]["podIP"] = FOREIGN_HOST
    forge(foreign, deployment)
    cluster.put(foreign)
    put_foreign_replica_set(cluster, deployment)

    await operator.reconcile()

    assert operator.state.demand.addresses == ("10.0.0.1:9090",)
    assert condition(cluster, "BalancerReady")["message"] == "1/1 balancers available"


async def test_a_foreign_replica_is_neither_counted_nor_believed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    before = server_status(cluster)
    foreign = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], 3, ready=False)
    foreign["status"]["initContainerStatuses"] = [
        {"name": "download", "state": {"terminated": {"exitCode": 1, "message": "{}"}}}
    ]
    foreign["metadata"]["ownerReferences"][0]["uid"] = "foreign"
    cluster.put(foreign)

    await operator.reconcile()

    assert server_status(cluster) == before


async def test_the_pods_of_an_old_replica_set_are_the_servers_own(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    deployment = cluster.by_name(DEPLOYMENTS)["chat-balancer"]
    old = put_replica_set_named(cluster, "old", deployment["metadata"]["uid"])
    pod = pod_of(deployment, 4)
    pod["metadata"]["ownerReferences"][0]["uid"] = old["metadata"]["uid"]
    cluster.put(pod)

    await operator.reconcile()

    assert operator.state.demand.addresses == ("10.0.0.1:9090", "10.0.0.5:9090")


async def test_the_pods_of_a_deployment_that_is_recreated_are_not_polled(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    cluster.remove(DEPLOYMENTS, KEY.namespace, "chat-balancer")

    await operator.reconcile()

    assert operator.state.demand.addresses == ()


async def test_the_pods_of_a_group_belong_to_its_stateful_sets(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, workers={"count": 1})
    leaders = cluster.by_name(STATEFUL_SETS)["chat-replicas"]
    foreign = pod_of(leaders, 5, ready=False)
    foreign["metadata"]["ownerReferences"][0]["uid"] = "foreign"
    cluster.put(foreign)
    before = server_status(cluster)
    assert before["replicas"] == 1

    await operator.reconcile()

    assert server_status(cluster) == before
    assert len(cluster.by_name(PODS)) == 4


def put_foreign_replica_set(cluster: FakeCluster, deployment: Manifest) -> None:
    """A ReplicaSet with the server's labels, whose controller is something else."""
    foreign = put_replica_set_named(cluster, "foreign", "somebody")
    assert foreign["metadata"]["labels"].items() <= deployment["metadata"]["labels"].items()


def put_replica_set_named(cluster: FakeCluster, name: str, controller: str) -> Manifest:
    labels = {"slotkeeper.dev/server": KEY.name, "slotkeeper.dev/component": "balancer"}
    return cluster.put(
        {
            "apiVersion": REPLICA_SETS.api_version,
            "kind": REPLICA_SETS.kind,
            "metadata": {
                "name": name,
                "namespace": KEY.namespace,
                "uid": name,
                "labels": labels,
                "ownerReferences": [{"controller": True, "uid": controller}],
            },
        }
    )
