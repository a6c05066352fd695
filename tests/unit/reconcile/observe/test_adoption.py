"""Children without an owner are adopted: after --cascade=orphan, or the restore of a backup."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    event_messages,
    event_reasons,
    replica_count,
    roll_out,
    update_spec,
)
from scenarios import collect_garbage
from slotkeeper.kube.cluster import Kind, Manifest
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, SERVICES
from slotkeeper.reconcile.workqueue import RetryError

LABELS = {"slotkeeper.dev/server": "chat", "app.kubernetes.io/managed-by": "slotkeeper"}


def children(cluster: FakeCluster) -> dict[tuple[Kind, str], Manifest]:
    return {
        (kind, name): item
        for (kind, namespace, name), item in cluster.objects.items()
        if kind in CHILDREN and namespace == KEY.namespace
    }


def orphan_children(cluster: FakeCluster) -> None:
    """What the garbage collector does for --cascade=orphan, and Velero when it restores."""
    for kind, name in children(cluster):
        cluster.edit(kind, KEY.namespace, name, remove_owner)


def remove_owner(item: Manifest) -> None:
    del item["metadata"]["ownerReferences"]


def service(labels: dict[str, str], **metadata: Any) -> Manifest:
    metadata = {"name": "chat", "namespace": KEY.namespace, "labels": labels, **metadata}
    spec = {"selector": {"app": "precious"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


async def test_a_server_that_is_created_again_adopts_its_orphans_without_a_restart(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=5)
    await operator.run_for(2)
    roll_out(cluster)
    before = children(cluster)
    pods = cluster.by_name(PODS)
    cluster.remove(LLAMA_SERVERS, KEY.namespace, KEY.name)
    orphan_children(cluster)
    await operator.reconcile()

    apply_server(cluster, autoscaling={"maxReplicas": 3})
    await operator.reconcile()

    uid = cluster.by_name(LLAMA_SERVERS)[KEY.name]["metadata"]["uid"]
    after = children(cluster)
    assert {one: item["metadata"]["uid"] for one, item in after.items()} == {
        one: item["metadata"]["uid"] for one, item in before.items()
    }
    assert {item["metadata"]["ownerReferences"][0]["uid"] for item in after.values()} == {uid}
    assert [after[one].get("spec") for one in after] == [before[one].get("spec") for one in after]
    assert replica_count(cluster) == 3
    collect_garbage(cluster)
    assert cluster.by_name(PODS) == pods
    assert condition(cluster, "Ready")["status"] == "True"
    [message] = event_messages(cluster, "Adopted")
    assert "Deployment chat-replicas" in message
    assert "DriftCorrected" not in event_reasons(cluster)


async def test_a_removed_owner_is_corrected(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator)

    cluster.edit(SERVICES, KEY.namespace, "chat", remove_owner)
    await operator.reconcile()

    assert "ownerReferences" in cluster.by_name(SERVICES)["chat"]["metadata"]
    [message] = event_messages(cluster, "DriftCorrected")
    assert "metadata.ownerReferences" in message


@pytest.mark.parametrize("is_gone", [True, False])
async def test_the_orphans_of_a_server_whose_deletion_was_not_shown_yet_are_not_adopted(
    cluster: FakeCluster, operator: Operator, *, is_gone: bool
) -> None:
    await deploy(cluster, operator)
    deletion = {"deletionTimestamp": "2026-11-01T12:00:00Z", "finalizers": ["orphan"]}
    cluster.edit(
        LLAMA_SERVERS, KEY.namespace, KEY.name, lambda raw: raw["metadata"].update(deletion)
    )
    orphan_children(cluster)
    if is_gone:
        cluster.remove(LLAMA_SERVERS, KEY.namespace, KEY.name)

    await operator.deliver_events(lambda event: event.object["kind"] != LLAMA_SERVERS.kind)
    await operator.run_passes()

    assert cluster.writes == []


async def test_orphans_that_are_not_desired_are_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    other = service(LABELS)
    other["metadata"]["name"] = "copied-with-its-labels"
    cluster.put(other)

    update_spec(cluster, slots=8)
    await operator.reconcile()

    assert cluster.by_name(SERVICES)["copied-with-its-labels"]["spec"] == other["spec"]


OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u"}


@pytest.mark.parametrize(
    ("foreign", "remedy"),
    [
        (service({}), "kubectl delete --namespace=default services/chat"),
        (service({"slotkeeper.dev/server": "chat"}), "kubectl label --namespace=default"),
        (service(LABELS, ownerReferences=[OWNER]), "owned by Deployment shop"),
        (service({**LABELS, "slotkeeper.dev/server": "other"}), "kubectl label"),
    ],
    ids=["without labels", "with one label", "of another owner", "of another server"],
)
async def test_other_objects_are_not_adopted_and_the_message_has_the_commands(
    cluster: FakeCluster, operator: Operator, foreign: Manifest, remedy: str
) -> None:
    cluster.put(foreign)
    apply_server(cluster)

    with pytest.raises(RetryError):
        await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert cluster.by_name(SERVICES)["chat"]["spec"] == foreign["spec"]
    assert ready["reason"] == "NameConflict"
    assert remedy in ready["message"]


async def test_the_command_in_the_message_resolves_the_conflict(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(service({}))
    apply_server(cluster)
    with pytest.raises(RetryError):
        await operator.reconcile()
    command = condition(cluster, "Ready")["message"].rpartition("kubectl label ")[2].rstrip(")")
    assert command.split()[:2] == ["--namespace=default", "services/chat"]
    labels = dict(word.split("=") for word in command.split()[2:] if not word.startswith("--"))

    cluster.edit(
        SERVICES, KEY.namespace, "chat", lambda item: item["metadata"]["labels"].update(labels)
    )
    await operator.reconcile()

    assert cluster.by_name(SERVICES)["chat"]["spec"]["selector"]["slotkeeper.dev/server"] == "chat"
    assert "chat-replicas" in cluster.by_name(DEPLOYMENTS)
