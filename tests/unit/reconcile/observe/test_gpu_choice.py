"""What `gpu.computeArch: auto` stands for, and servers whose GPUs have no image."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from fake_cluster import FakeCluster
from gpu_nodes import bind
from llamaservers import IMAGES
from operator_harness import (
    Operator,
    apply_server,
    condition,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import unschedulable
from slotkeeper.desired.images import Images
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import DEPLOYMENTS, NODES
from slotkeeper.reconcile.gpus import Gpus

MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
AUTO = {"computeArch": "auto"}
TURING = "llama-server:turing"
AMPERE = "llama-server:ampere"
ANY = "llama-server:cuda"
TABLE = replace(
    IMAGES, by_compute_arch={"7.5": TURING, "8.6": AMPERE, "8.7": AMPERE}, by_vendor={"nvidia": ANY}
)


def add_node(cluster: FakeCluster, name: str, arch: str = "", **labels: str) -> None:
    major, _, minor = arch.partition(".")
    found = {MAJOR: major, MINOR: minor} if arch else {}
    metadata = {"name": name, "namespace": "", "labels": {**found, **labels}}
    cluster.put({"apiVersion": "v1", "kind": "Node", "metadata": metadata})


def use(operator: Operator, images: Images) -> None:
    """Let an operator have these images."""
    reconciler = operator.reconciler
    reconciler._images = images
    reconciler._gpus = Gpus(reconciler._gpus._nodes, images, operator.time.clock.wall)


@pytest.fixture
def operator(operator: Operator) -> Operator:
    """An operator with images for some compute capabilities, and one for all others."""
    use(operator, TABLE)
    return operator


def replica(cluster: FakeCluster) -> tuple[str, set[str]]:
    """The image of the replicas, and the compute capabilities that they require of a node."""
    deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
    pod = deployment["spec"]["template"]["spec"]
    required = pod.get("affinity", {}).get("nodeAffinity", {})
    terms = required.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    arches = set()
    for term in terms.get("nodeSelectorTerms", []):
        values = {each["key"]: each["values"] for each in term["matchExpressions"]}
        (major,) = values[MAJOR]
        arches |= {f"{major}.{minor}" for minor in values[MINOR]}
    return pod["containers"][0]["image"], arches


def chosen(cluster: FakeCluster) -> list[str] | None:
    """The compute capabilities in the status."""
    found: list[str] | None = server_status(cluster).get("gpu", {}).get("computeArches")
    return found


async def deploy(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    apply_server(cluster, **{"gpu": AUTO, **spec})
    await operator.reconcile()


@pytest.mark.parametrize(
    ("nodes", "image", "required"),
    [
        (["7.5", "7.5"], TURING, {"7.5"}),
        (["8.6", "8.7"], AMPERE, {"8.6", "8.7"}),
        (["8.7"], AMPERE, {"8.6", "8.7"}),
        (["7.5", "8.6"], ANY, set()),
        (["9.0"], ANY, set()),
        ([], ANY, set()),
    ],
)
async def test_auto_is_one_image_for_all_gpus_of_the_cluster(
    cluster: FakeCluster, operator: Operator, nodes: list[str], image: str, required: set[str]
) -> None:
    add_node(cluster, "cpu")
    for number, arch in enumerate(nodes):
        add_node(cluster, f"gpu-{number}", arch)

    await deploy(cluster, operator)

    assert replica(cluster) == (image, required)
    assert chosen(cluster) == sorted(set(nodes))


async def test_only_nodes_that_the_placement_selects_count(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5", pool="small")
    add_node(cluster, "b", "8.6", pool="large")

    await deploy(cluster, operator, placement={"nodeSelector": {"pool": "large"}})

    assert replica(cluster) == (AMPERE, {"8.6", "8.7"})


async def test_nodes_that_come_and_go_restart_no_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5")
    await deploy(cluster, operator)
    roll_out(cluster)
    bind(cluster)
    await operator.reconcile()

    changes = (partial(add_node, cluster, "b", "8.6"), partial(remove_nodes, cluster))
    for change in changes:
        change()
        operator.time.elapsed += 600
        await operator.reconcile()

        assert replica(cluster) == (TURING, {"7.5"})
        assert chosen(cluster) == ["7.5"]


async def test_a_restarted_operator_keeps_the_choice(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5")
    await deploy(cluster, operator)
    roll_out(cluster)
    bind(cluster)
    add_node(cluster, "b", "8.6")

    newer = Operator(cluster)
    use(newer, TABLE)
    await newer.reconcile()

    assert replica(cluster) == (TURING, {"7.5"})


async def test_without_nodes_the_last_choice_is_kept(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5")
    await deploy(cluster, operator)

    remove_nodes(cluster)
    operator.time.elapsed += 600
    await operator.reconcile()

    assert replica(cluster) == (TURING, {"7.5"})


async def test_replicas_that_wait_for_a_node_get_those_that_there_are(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5")
    await deploy(cluster, operator)
    roll_out(cluster, ready=False)
    set_pod_status(cluster, unschedulable("0/1 nodes are available"))

    remove_nodes(cluster)
    add_node(cluster, "b", "8.6")
    operator.time.elapsed += 600
    await operator.reconcile()

    assert replica(cluster) == (AMPERE, {"8.6", "8.7"})
    assert chosen(cluster) == ["8.6"]


async def test_a_compute_capability_instead_of_auto_ends_the_choice(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_node(cluster, "a", "7.5")
    await deploy(cluster, operator)

    update_spec(cluster, gpu={"computeArch": "9.0"})
    await operator.reconcile()

    assert replica(cluster) == (ANY, {"9.0"})
    assert chosen(cluster) is None


async def test_an_own_image_needs_no_choice(cluster: FakeCluster, operator: Operator) -> None:
    add_node(cluster, "a", "7.5")

    await deploy(cluster, operator, image="mine:1")

    assert replica(cluster) == ("mine:1", set())
    assert chosen(cluster) is None


@pytest.mark.parametrize(
    ("nodes", "gpu", "message"),
    [
        (
            ["7.5", "8.6"],
            AUTO,
            (
                "no image of llama-server for all of the compute capabilities 7.5, 8.6, which the "
                "nodes have: set the chart value images.llamaServerByVendor.nvidia, or image, or "
                "gpu.computeArch to one that has an image (7.5, 8.6, 8.7)"
            ),
        ),
        ([], AUTO, "nvidia.com/gpu of any kind, and no node has the label that GPU feature"),
        ([], {"computeArch": "9.0"}, "no image of llama-server for compute capability 9.0: set"),
        ([], {}, "no image of llama-server for nvidia.com/gpu of any kind: set"),
        (
            [],
            {"resourceName": "gpu.intel.com/xe"},
            "gpu.intel.com/xe of any kind: set the chart value images.llamaServerByVendor.intel",
        ),
    ],
)
async def test_gpus_without_an_image_are_rejected_with_what_to_set(
    cluster: FakeCluster, operator: Operator, nodes: list[str], gpu: dict[str, str], message: str
) -> None:
    use(operator, replace(TABLE, by_vendor={}))
    for number, arch in enumerate(nodes):
        add_node(cluster, f"gpu-{number}", arch)

    await deploy(cluster, operator, gpu=gpu)

    for kind in ("Ready", "ReplicasReady", "Degraded"):
        assert condition(cluster, kind)["reason"] == "NoImageForGPU"
    assert message in condition(cluster, "Ready")["message"]
    assert cluster.by_name(DEPLOYMENTS) == {}


async def test_without_the_right_to_list_nodes_auto_is_the_image_for_all(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(ApiError(403, "Forbidden", "nodes is forbidden"), "list", NODES)
    await deploy(cluster, operator)
    assert replica(cluster) == (ANY, set())

    use(operator, replace(TABLE, by_vendor={}))
    update_spec(cluster, replicas=2)
    await operator.reconcile()

    assert "the operator may not list nodes" in condition(cluster, "Ready")["message"]


def remove_nodes(cluster: FakeCluster) -> None:
    for name in list(cluster.by_name(NODES)):
        cluster.remove(NODES, "", name)
