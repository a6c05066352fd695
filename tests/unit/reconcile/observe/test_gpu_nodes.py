"""Where no node has the compute capability that a replica needs, those of the cluster are named."""

import asyncio
from typing import Any

import pytest
from typing_extensions import override

from fake_cluster import FakeCluster
from gpu_nodes import add_gpu_node
from operator_harness import FakeTime, Operator, apply_server, condition, roll_out, set_pod_status
from pod_statuses import unschedulable
from slotkeeper.kube.cluster import ApiError, Listing, Manifest
from slotkeeper.kube.kinds import NODES
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes, arches

MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
NO_NODE = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."


def node(name: str, arch: str = "") -> Manifest:
    major, _, minor = arch.partition(".")
    labels = {MAJOR: major, MINOR: minor} if arch else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "namespace": "", "labels": labels},
    }


async def deploy_unschedulable(cluster: FakeCluster, operator: Operator, **gpu: Any) -> Any:
    """Deploy a server for whose replica the scheduler finds no node; its ReplicasReady."""
    apply_server(cluster, gpu=gpu)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, unschedulable(NO_NODE))
    await operator.reconcile()
    return condition(cluster, "ReplicasReady")


async def test_the_compute_capabilities_of_the_cluster_are_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    for name, arch in (("a", "10.0"), ("b", "7.5"), ("c", "7.5"), ("d", "")):
        cluster.put(node(name, arch))

    found = await deploy_unschedulable(cluster, operator, computeArch="sm_90")

    assert (found["status"], found["reason"]) == ("False", "NoMatchingNode")
    expected = "no node has GPUs of compute capability 9.0: the cluster has 7.5, 10.0"
    assert expected in found["message"]
    assert condition(cluster, "Ready")["reason"] == "NoMatchingNode"
    assert condition(cluster, "Degraded")["reason"] == "NoMatchingNode"


async def test_a_cluster_without_the_labels_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(node("a"))

    found = await deploy_unschedulable(cluster, operator, computeArch="9.0")

    assert "no node has the label that GPU feature discovery writes" in found["message"]


async def test_where_a_node_matches_the_scheduler_is_quoted(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(node("a", "9.0"))

    found = await deploy_unschedulable(cluster, operator, computeArch="9.0")

    assert found["reason"] == "Unschedulable"
    assert NO_NODE in found["message"]


async def test_the_largest_memory_of_the_cluster_is_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "a", "640")
    add_gpu_node(cluster, "b", "15360")

    found = await deploy_unschedulable(cluster, operator, minMemory="20Gi")

    assert (found["status"], found["reason"]) == ("False", "NoMatchingNode")
    assert "; no node has GPUs with 20Gi: the largest has 15Gi" in found["message"]


async def test_only_nodes_of_the_compute_capability_have_its_memory(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "a", "640")
    add_gpu_node(cluster, "b", "81920", **{MAJOR: "8", MINOR: "0"})

    found = await deploy_unschedulable(cluster, operator, computeArch="7.5", minMemory="20Gi")

    expected = "; no node that replicas may use has GPUs with 20Gi: the largest has 640Mi"
    assert expected in found["message"]


async def test_without_any_label_of_the_memory_this_is_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(node("a", "7.5"))

    found = await deploy_unschedulable(cluster, operator, minMemory="20Gi")

    label = "no node has the label nvidia.com/gpu.memory, which GPU feature discovery sets"
    assert f"no node has GPUs with 20Gi: {label}" in found["message"]


@pytest.mark.parametrize("mib", ["20480", "24564"])
async def test_where_a_node_has_the_memory_the_scheduler_is_quoted(
    cluster: FakeCluster, operator: Operator, mib: str
) -> None:
    add_gpu_node(cluster, "a", mib)

    found = await deploy_unschedulable(cluster, operator, minMemory="20Gi")

    assert found["reason"] == "Unschedulable"


async def test_without_the_right_to_list_nodes_the_scheduler_is_quoted(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(ApiError(403, "Forbidden", "nodes is forbidden"), "list", NODES)

    found = await deploy_unschedulable(cluster, operator, computeArch="9.0")

    assert found["reason"] == "Unschedulable"


async def test_nodes_are_listed_once_in_thirty_seconds(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_unschedulable(cluster, operator, computeArch="9.0")
    for _ in range(5):
        await operator.reconcile()
    assert cluster.requests.count(("list", "Node")) == 1
    operator.time.elapsed += 31
    await operator.reconcile()

    assert cluster.requests.count(("list", "Node")) == 2


@pytest.mark.parametrize(("status", "kept"), [(403, None), (500, ["7.5"]), (0, ["7.5"])])
async def test_a_listing_that_fails_for_a_time_leaves_the_nodes_before(
    status: int, kept: list[str] | None
) -> None:
    cluster, time = FakeCluster(), FakeTime()
    cluster.put(node("a", "7.5"))
    nodes = GpuNodes(cluster, lambda: time.elapsed)
    await nodes.compute_arches()

    cluster.fail(ApiError(status, "Failed", "cannot list"), "list", NODES)
    time.elapsed += 31

    assert await nodes.compute_arches() == kept


async def test_a_second_server_waits_for_the_listing_of_the_first() -> None:
    cluster = SlowListings()
    cluster.put(node("a", "7.5"))
    nodes = GpuNodes(cluster, lambda: 0.0)

    first, second = await asyncio.gather(nodes.compute_arches(), nodes.compute_arches())

    assert (first, second) == (["7.5"], ["7.5"])
    assert cluster.requests == [("list", "Node")]


class SlowListings(FakeCluster):
    """Other tasks run during its listings."""

    @override
    async def list(self, *arguments: Any, **named: Any) -> Listing:
        await asyncio.sleep(0)
        return await super().list(*arguments, **named)


@pytest.mark.parametrize(
    "labels",
    [
        {MAJOR: "9"},
        {MAJOR: "9", MINOR: "x"},
        {MAJOR: "", MINOR: ""},
        {MAJOR: "", MINOR: "5"},
        {MAJOR: "7", MINOR: ""},
        {MAJOR: "07", MINOR: "5"},
        {MAJOR: "0", MINOR: "0"},
        {MAJOR: "9" * 63, MINOR: "0"},
    ],
)
def test_labels_without_a_compute_capability_are_ignored(labels: dict[str, str]) -> None:
    assert arches([labels, {}, {MAJOR: "8", MINOR: "6"}]) == ["8.6"]


def test_no_more_compute_capabilities_are_found_than_the_status_may_have() -> None:
    nodes = [{MAJOR: str(major), MINOR: "0"} for major in range(1, 100)]
    assert arches(nodes) == [f"{major}.0" for major in range(1, 65)]
