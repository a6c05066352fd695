"""Objects with the name of a child that the server does not own are never changed."""

import copy

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    KEY,
    Operator,
    apply_server,
    condition,
    deploy,
    event_reasons,
    published_blocker,
    replica_count,
    roll_out,
    set_pod_status,
    update_spec,
)
from pod_statuses import download, download_error
from scenarios import collect_garbage, delete_server
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.kube.cluster import Conflict, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, PODS, SERVICES
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


ROLE = Write("apply", "Role", "chat-balancer")


async def test_a_resolved_conflict_withdraws_its_start_blocker_with_one_write(
    cluster: FakeCluster, operator: Operator
) -> None:
    foreign = copy.deepcopy(FOREIGN) | {"apiVersion": "apps/v1", "kind": "Deployment"}
    foreign["metadata"]["name"] = "chat-replicas"
    cluster.put(foreign)
    apply_server(cluster)
    await operator.run_for(60)
    blocker = published_blocker(cluster)
    before = cluster.writes.count(ROLE)

    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")
    await operator.run_for(300)

    assert blocker is not None
    assert blocker.reason == "NameConflict"
    # Created, and the start blocker added.
    assert before == 2
    assert published_blocker(cluster) is None
    assert cluster.writes.count(ROLE) == before + 1
    assert replica_count(cluster) == 1
    assert not operator.queue.is_failing(KEY)


async def test_a_conflict_of_another_child_writes_the_lease_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(FOREIGN)
    apply_server(cluster)
    await operator.run_for(60)
    cluster.remove(SERVICES, "default", "chat")
    await operator.run_for(300)

    assert "chat" in cluster.by_name(SERVICES)
    assert cluster.writes.count(ROLE) == 1
    assert all(
        START_BLOCKER_ANNOTATION not in change.after["metadata"]["annotations"]
        for change in cluster.history
        if change.after and change.after["kind"] == "Role"
    )


async def test_the_start_blocker_of_the_previous_server_is_not_published_for_the_new_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, download(state=download_error("ModelNotFound", "404")))
    await operator.reconcile()
    published = published_blocker(cluster)

    delete_server(cluster)
    apply_server(cluster)
    restarted = Operator(cluster)
    await restarted.run_for(1)
    waiting = condition(cluster, "Ready")["reason"]
    cluster.remove(PODS, "default", "chat-replicas-0")
    collect_garbage(cluster)
    await restarted.run_for(300)

    assert published is not None
    assert waiting == "WaitingForDeletion"
    assert published_blocker(cluster) is None
    uid = cluster.by_name(LLAMA_SERVERS)["chat"]["metadata"]["uid"]
    roles = [
        change.after["metadata"]
        for change in cluster.history
        if change.after and change.after["kind"] == "Role"
    ]
    owned = [each for each in roles if each["ownerReferences"][0]["uid"] == uid]
    assert [START_BLOCKER_ANNOTATION in each["annotations"] for each in owned] == [False]
