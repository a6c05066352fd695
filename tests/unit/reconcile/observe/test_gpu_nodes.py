"""A compute capability that no node has is said, with those that there are."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, condition, pod_of, roll_out, stored
from slotkeeper.kube.cluster import ApiError, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS
from slotkeeper.reconcile.observe.gpu_nodes import arches

MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
WAITS = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."


def node(name: str, arch: str = "") -> Manifest:
    major, _, minor = arch.partition(".")
    labels = {MAJOR: major, MINOR: minor} if arch else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "namespace": "", "labels": labels},
    }


async def waiting(cluster: FakeCluster, operator: Operator, **gpu: Any) -> Any:
    """ReplicasReady of a server for whose replica the scheduler finds no node."""
    stored(cluster, gpu=gpu)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": WAITS,
    }
    cluster.put(pod | {"status": {"conditions": [scheduled]}})
    await operator.reconcile()
    return condition(cluster, "ReplicasReady")


async def test_what_the_cluster_has_instead_is_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    for name, arch in (("a", "10.0"), ("b", "7.5"), ("c", "7.5"), ("d", "")):
        cluster.put(node(name, arch))

    found = await waiting(cluster, operator, computeArch="sm_90")

    assert (found["status"], found["reason"]) == ("False", "NoMatchingNode")
    assert (
        "no node has GPUs of compute capability 9.0: the cluster has 7.5, 10.0"
        in (found["message"])
    )
    assert condition(cluster, "Ready")["reason"] == "NoMatchingNode"
    assert condition(cluster, "Degraded")["reason"] == "NoMatchingNode"


async def test_a_cluster_without_labels_is_said_to_have_none(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(node("a"))

    found = await waiting(cluster, operator, computeArch="9.0")

    assert "no node has the label that GPU feature discovery writes" in found["message"]


async def test_where_a_node_has_it_the_scheduler_is_quoted(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(node("a", "9.0"))

    found = await waiting(cluster, operator, computeArch="9.0")

    assert found["reason"] == "Unschedulable"
    assert WAITS in found["message"]


async def test_who_may_not_read_nodes_quotes_the_scheduler(
    cluster: FakeCluster, operator: Operator
) -> None:
    def forbid(verb: str, manifest: Manifest) -> Exception | None:
        is_nodes = verb == "list" and manifest["kind"] == "Node"
        return ApiError(403, "Forbidden", "nodes is forbidden") if is_nodes else None

    cluster.refuse = forbid

    found = await waiting(cluster, operator, computeArch="9.0")

    assert found["reason"] == "Unschedulable"


async def test_nodes_are_read_only_where_one_is_missing_and_not_each_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    lists: list[str] = []

    def count(verb: str, manifest: Manifest) -> None:
        if verb == "list":
            lists.append(manifest["kind"])

    cluster.refuse = count

    await waiting(cluster, operator, computeArch="9.0")
    for _ in range(5):
        await operator.reconcile()
    assert lists.count("Node") == 1
    operator.time.passed += 31
    await operator.reconcile()

    assert lists.count("Node") == 2


@pytest.mark.parametrize("labels", [{MAJOR: "9"}, {MAJOR: "9", MINOR: "x"}, {MAJOR: "", MINOR: ""}])
def test_labels_that_say_nothing_are_passed_over(labels: dict[str, str]) -> None:
    assert arches([{"metadata": {"labels": labels}}, {"metadata": {}}]) == []
