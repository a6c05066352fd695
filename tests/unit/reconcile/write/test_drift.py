"""Drift: fields that others change are corrected, fields that others add stay."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, deploy, edit_spec, update_spec
from slotkeeper.kube.cluster import Kind
from slotkeeper.kube.kinds import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, STATEFUL_SETS
from slotkeeper.reconcile.workqueue import RetryError

DRIFTS: list[Any] = [
    pytest.param(
        DEPLOYMENTS, "chat-replicas", lambda found: found["spec"].update(replicas=7), id="replicas"
    ),
    pytest.param(
        SERVICES, "chat", lambda found: found["spec"]["selector"].clear(), id="selector emptied"
    ),
    pytest.param(
        SERVICES,
        "chat",
        lambda found: found["spec"]["selector"].update(a="b"),
        id="selector with one requirement more",
    ),
    pytest.param(
        SERVICE_ACCOUNTS,
        "chat-balancer",
        lambda found: found["metadata"]["labels"].clear(),
        id="labels removed",
    ),
]


@pytest.mark.parametrize(("kind", "name", "change"), DRIFTS)
async def test_drift_is_corrected(
    cluster: FakeCluster, operator: Operator, kind: Kind, name: str, change: Callable[[Any], None]
) -> None:
    await deploy(cluster, operator)
    before = copy.deepcopy(cluster.by_name(kind)[name])
    cluster.edit(kind, "default", name, change)

    await operator.reconcile()

    after = cluster.by_name(kind)[name]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after.get("spec") == before.get("spec")


async def test_fields_that_others_add_are_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    def annotate(found: Any) -> None:
        found["metadata"]["annotations"]["example.com/note"] = "mine"
        found["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})

    cluster.edit(DEPLOYMENTS, "default", "chat-balancer", annotate)

    await operator.reconcile()

    assert cluster.writes == []


async def test_an_obsolete_child_is_deleted_and_an_object_without_owner_is_not(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    obsolete = copy.deepcopy(cluster.by_name(SERVICES)["chat"])
    obsolete["metadata"]["name"] = "chat-of-an-older-release"
    cluster.put(obsolete)
    foreign = copy.deepcopy(obsolete)
    foreign["metadata"] |= {"name": "foreign", "ownerReferences": []}
    cluster.put(foreign)

    await operator.reconcile()

    assert set(cluster.by_name(SERVICES)) == {"chat", "chat-replicas", "foreign"}


async def test_a_child_that_lost_its_label_is_found_and_corrected(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    uid = cluster.by_name(SERVICES)["chat"]["metadata"]["uid"]
    cluster.edit(
        SERVICES, "default", "chat", lambda found: found["metadata"].update(labels={}, note="kept")
    )

    await operator.reconcile()

    after = cluster.by_name(SERVICES)["chat"]["metadata"]
    assert (after["uid"], after["note"]) == (uid, "kept")
    assert after["labels"]["slotkeeper.dev/server"] == "chat"


async def test_a_child_that_is_still_terminating_is_created_again_after_a_back_off(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, workers={"count": 1})
    worker = (STATEFUL_SETS, "default", "chat-worker-0")
    cluster.edit(*worker, lambda found: found["metadata"].update(finalizers=["example.com/wait"]))
    edit_spec(cluster, lambda spec: spec.pop("workers"))
    await operator.reconcile()
    update_spec(cluster, workers={"count": 1})

    with pytest.raises(RetryError, match="StatefulSet chat-worker-0 is still terminating"):
        await operator.reconcile()
    cluster.remove(*worker)
    await operator.run_for(10)

    assert "chat-worker-0" in cluster.by_name(STATEFUL_SETS)
    assert not operator.queue.is_failing(KEY)
