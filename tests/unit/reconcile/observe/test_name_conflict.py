"""Objects with the name of a child that the server does not own are never changed."""

import copy

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    event_reasons,
    update_spec,
)
from slotkeeper.kube.cluster import Conflict, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, SERVICES
from slotkeeper.reconcile.workqueue import RetryError

FOREIGN: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {"selector": {"app": "precious"}},
}


async def test_an_object_that_the_server_does_not_own_is_never_changed(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(FOREIGN)
    apply_server(cluster)

    with pytest.raises(RetryError):
        await operator.reconcile()

    assert cluster.by_name(SERVICES)["chat"]["spec"] == FOREIGN["spec"]
    assert condition(cluster, "Ready")["reason"] == "NameConflict"
    assert "Service chat" in condition(cluster, "Ready")["message"]


async def test_children_of_a_deleted_server_of_the_same_name_are_waited_for_without_an_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    apply_server(cluster)

    with pytest.raises(RetryError):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "WaitingForDeletion"
    assert "WaitingForDeletion" not in event_reasons(cluster)


async def test_a_foreign_object_that_replaced_a_child_unseen_is_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    foreign = copy.deepcopy(FOREIGN) | {"apiVersion": "apps/v1", "kind": "Deployment"}
    foreign["metadata"]["name"] = "chat-replicas"
    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")
    cluster.put(foreign)
    update_spec(cluster, slots=8)
    await operator.deliver_events(lambda event: event.object["kind"] != "Deployment")

    with pytest.raises(Conflict):
        await operator.run_passes()
    operator.relist()
    with pytest.raises(RetryError):
        await operator.reconcile()

    assert cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"] == FOREIGN["spec"]
    assert condition(cluster, "Ready")["reason"] == "NameConflict"


async def test_a_name_conflict_is_checked_by_reading_and_ends_with_the_foreign_object(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(FOREIGN)
    apply_server(cluster)
    with pytest.raises(RetryError):
        await operator.reconcile()
    cluster.requests.clear()

    with pytest.raises(RetryError):
        await operator.reconcile()
    cluster.remove(SERVICES, "default", "chat")
    attempted = [(verb, kind) for verb, kind in cluster.requests if verb != "list"]
    await operator.reconcile()

    assert attempted == []
    assert "chat" in cluster.by_name(SERVICES)
    assert condition(cluster, "Ready")["reason"] != "NameConflict"
