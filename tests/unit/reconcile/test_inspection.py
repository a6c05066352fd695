"""Whether a model fits is known before it is downloaded: headers are read by a short Job."""

from datetime import timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from gpu_nodes import add_gpu_node, bind
from inspection_jobs import (
    EIGHT,
    RECORD,
    end,
    inspection,
    inspections,
)
from operator_harness import (
    START,
    Operator,
    apply_server,
    condition,
    deploy,
    event_messages,
    replica_count,
    roll_out,
    server_status,
    update_spec,
)
from prefetch_jobs import failed
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import LLAMA_SERVERS, NODES

GPU = {"memory": "15Gi"}


def fits(cluster: FakeCluster) -> tuple[str, str, str]:
    found = condition(cluster, "FitsMemory")
    return found["status"], found["reason"], found["message"]


async def inspect(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server, of whose files a Job reports the headers."""
    await deploy(cluster, operator, **{"gpu": GPU, **spec})
    end(cluster, {"record": RECORD})
    await operator.reconcile()


async def test_headers_are_read_once_and_the_job_is_removed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    waiting = fits(cluster)
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert waiting == ("Unknown", "ReadingHeader", "waiting for the headers of the model's files")
    assert fits(cluster) == ("True", "Fits", "4 slots x 4096 tokens need 10.8 GiB of 15.0 GiB")
    assert inspections(cluster) == []
    memory = server_status(cluster)["memory"]
    assert memory["gpuBytes"] == 15 * 1024**3
    assert memory["neededBytes"] < memory["gpuBytes"]
    assert memory["slots"] == 12
    cluster.writes.clear()
    operator.relist()
    await operator.reconcile()
    assert cluster.writes == []


async def test_replicas_start_before_and_although_the_plan_says_no(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, gpu=GPU, **EIGHT)
    await operator.reconcile()
    started = replica_count(cluster)
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    message = "8 slots x 8192 tokens need 16.9 GiB of 15.0 GiB; 6 slots fit"
    assert started == replica_count(cluster) == 1
    assert fits(cluster) == ("False", "DoesNotFit", message)
    roll_out(cluster)
    await operator.reconcile()
    degraded = condition(cluster, "Degraded")
    assert (degraded["reason"], degraded["message"]) == ("DoesNotFit", message)
    assert condition(cluster, "Ready")["status"] == "True"
    assert event_messages(cluster, "DoesNotFit") == [message]


async def test_another_number_of_slots_needs_no_other_job(
    cluster: FakeCluster, operator: Operator
) -> None:
    await inspect(cluster, operator)

    update_spec(cluster, **EIGHT)
    await operator.reconcile()

    assert fits(cluster)[1] == "DoesNotFit"
    assert inspections(cluster) == []


async def test_another_model_is_read_again(cluster: FakeCluster, operator: Operator) -> None:
    await inspect(cluster, operator)

    update_spec(cluster, model={"url": "https://models.example.com/other.gguf"})
    await operator.reconcile()

    assert fits(cluster)[1] == "ReadingHeader"
    assert "record" not in server_status(cluster)["memory"]
    assert inspections(cluster)


async def test_a_model_that_cannot_be_planned_is_not_read_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    end(cluster, {"unplannable": "the memory of the architecture 't5' is not planned"})
    await operator.reconcile()

    assert fits(cluster) == (
        "Unknown",
        "NotPlanned",
        "memory is not planned: the memory of the architecture 't5' is not planned",
    )
    assert inspections(cluster) == []


async def test_a_model_that_another_release_could_not_plan_is_read_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    end(cluster, {"unplannable": "the memory of the architecture 'new' is not planned"})
    await operator.reconcile()

    def upgrade(raw: Any) -> None:
        raw["status"]["memory"]["release"] = "0.0.9"

    cluster.edit(LLAMA_SERVERS, "default", "chat", upgrade)
    await operator.reconcile()
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert fits(cluster)[:2] == ("True", "Fits")
    assert "release" not in server_status(cluster)["memory"]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("no JSON", id="text"),
        pytest.param([], id="a list"),
        pytest.param({"record": 1}, id="a number"),
        pytest.param({"record": "1.AAAA"}, id="damaged"),
        pytest.param({"record": RECORD + "A"}, id="longer"),
        pytest.param({"unplannable": ""}, id="no reason"),
        pytest.param({"unplannable": {"why": []}}, id="an object"),
    ],
)
async def test_a_malformed_report_is_no_report(
    cluster: FakeCluster, operator: Operator, message: Any
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    end(cluster, message)
    await operator.reconcile()

    name = inspection(cluster)["metadata"]["name"]
    cause = f"the headers of the model's files could not be read: Job {name} has left no report"
    delete = f"kubectl delete --namespace=default jobs/{name}"
    retried = f"it is tried again within ten minutes, or at once after {delete}"
    assert fits(cluster) == ("Unknown", "HeaderUnavailable", f"{cause}; {retried}")


async def test_a_failed_job_is_explained_and_replaced_after_an_hour(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    first = inspection(cluster)["metadata"]["uid"]
    report = {"reason": "ModelNotFound", "message": "GET https://models.example.com/: 404"}
    end(cluster, report, code=1, condition=failed("PodFailurePolicy", rfc3339(START)))
    await operator.reconcile()

    assert fits(cluster)[1] == "HeaderUnavailable"
    assert "models.example.com/: 404; it is tried again within an hour, or at" in fits(cluster)[2]
    assert inspection(cluster)["metadata"]["uid"] == first
    await operator.run_for(int(timedelta(hours=1).total_seconds()) + 1)
    assert inspection(cluster)["metadata"]["uid"] != first


async def test_the_memory_of_the_smallest_node_is_taken(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "large", "81920")
    add_gpu_node(cluster, "small", "15360")
    await inspect(cluster, operator, gpu={}, **EIGHT)

    assert fits(cluster)[2] == "8 slots x 8192 tokens need 16.9 GiB of 15.0 GiB; 6 slots fit"


@pytest.mark.parametrize(
    ("gpu", "spec"),
    [
        ({"minMemory": "20Gi"}, {}),
        ({"computeArch": "8.0"}, {}),
        ({}, {"placement": {"nodeSelector": {"pool": "large"}}}),
    ],
)
async def test_only_nodes_that_replicas_may_use_count(
    cluster: FakeCluster, operator: Operator, gpu: Any, spec: Any
) -> None:
    add_gpu_node(cluster, "small", "15360")
    large = {"nvidia.com/gpu.compute.major": "8", "nvidia.com/gpu.compute.minor": "0"}
    add_gpu_node(cluster, "large", "81920", pool="large", **large)
    await inspect(cluster, operator, gpu=gpu, **EIGHT, **spec)

    assert server_status(cluster)["memory"]["gpuBytes"] == 80 * 1024**3


@pytest.mark.parametrize("mib", ["", "-1", "16 GB", "0", "9" * 40])
async def test_a_label_that_is_no_size_is_ignored(
    cluster: FakeCluster, operator: Operator, mib: str
) -> None:
    add_gpu_node(cluster, "a", mib)
    await deploy(cluster, operator)

    assert fits(cluster) == (
        "Unknown",
        "GpuMemoryUnknown",
        (
            "the memory of the GPUs is not known: no node has the label nvidia.com/gpu.memory, "
            "which GPU feature discovery sets; set gpu.memory"
        ),
    )
    assert inspections(cluster) == []


async def test_a_shared_gpu_has_not_the_memory_of_its_label(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "a", "15360", **{"nvidia.com/gpu.replicas": "4"})
    await deploy(cluster, operator)

    assert fits(cluster) == (
        "Unknown",
        "GpuMemoryUnknown",
        (
            "the memory of the GPUs is not known: the GPUs are shared, and the label has that of a "
            "whole one; set gpu.memory"
        ),
    )


async def test_nodes_with_less_than_the_minimum_are_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "a", "640")
    add_gpu_node(cluster, "b", "512")
    await deploy(cluster, operator, gpu={"minMemory": "12Gi"})

    assert fits(cluster) == (
        "Unknown",
        "GpuMemoryUnknown",
        (
            "no node has GPUs with 12Gi: the largest has 640Mi; lower gpu.minMemory, or set "
            "gpu.memory if nodes are added later"
        ),
    )


@pytest.mark.parametrize(
    ("gpu", "spec", "why"),
    [
        (
            {"resourceName": "amd.com/gpu"},
            {},
            "no label of a node has that of amd.com/gpu",
        ),
        (
            {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]},
            {},
            "no label of a node has that of the GPUs of a claim",
        ),
        (
            {},
            {"placement": {"nodeSelector": {"pool": "large"}}},
            (
                "no node that replicas may use has the label nvidia.com/gpu.memory, which GPU "
                "feature discovery sets"
            ),
        ),
    ],
)
async def test_it_is_explained_why_no_label_has_the_memory(
    cluster: FakeCluster, operator: Operator, gpu: Any, spec: Any, why: str
) -> None:
    add_gpu_node(cluster, "a", "15360")
    await deploy(cluster, operator, gpu=gpu, **spec)

    expected = f"the memory of the GPUs is not known: {why}; set gpu.memory"
    assert fits(cluster) == ("Unknown", "GpuMemoryUnknown", expected)


async def test_without_the_right_to_list_nodes_this_is_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(ApiError(403, "Forbidden", "nodes is forbidden"), "list", NODES)
    await deploy(cluster, operator)
    before = fits(cluster)[2]
    bind(cluster)
    await operator.reconcile()

    unknown = "the memory of the GPUs is not known: "
    assert before == f"{unknown}the operator may not list nodes; set gpu.memory"
    assert fits(cluster)[2] == (
        f"{unknown}when a replica got its node, it could not be read from the label "
        "nvidia.com/gpu.memory; set gpu.memory"
    )


async def test_nodes_are_not_listed_while_a_replica_has_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "a", "15360")
    await inspect(cluster, operator, gpu={})
    bind(cluster)
    add_gpu_node(cluster, "b", "8192")
    cluster.requests.clear()
    operator.time.elapsed += 60
    await operator.reconcile()

    assert server_status(cluster)["memory"]["gpuBytes"] == 15 * 1024**3
    assert ("list", "Node") not in cluster.requests


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {"model": {"url": "image:///model.gguf"}},
            "a file of the model is in llama-server's image",
        ),
        (
            {
                "model": {
                    "url": "https://models.example.com/model.gguf",
                    "adapters": [{"url": "https://models.example.com/lora.gguf"}],
                }
            },
            "model.adapters are not planned",
        ),
        ({"extraArgs": ["--swa-full"]}, "--swa-full in extraArgs is not planned"),
        ({"speculative": {"type": "draft-mtp"}}, "speculative.type draft-mtp is not planned"),
    ],
)
async def test_what_is_not_planned_is_not_read(
    cluster: FakeCluster, operator: Operator, spec: Any, why: str
) -> None:
    await deploy(cluster, operator, gpu=GPU, **spec)

    assert fits(cluster) == ("Unknown", "NotPlanned", f"memory is not planned: {why}")
    assert inspections(cluster) == []


async def test_without_gpus_there_is_neither_condition_nor_job(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu={"count": 0})

    kinds = [found["type"] for found in server_status(cluster)["conditions"]]
    assert "FitsMemory" not in kinds
    assert "memory" not in server_status(cluster)
    assert inspections(cluster) == []


async def test_a_suspended_server_reads_nothing(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator, gpu=GPU, suspend=True)

    assert inspections(cluster) == []
    assert fits(cluster)[:2] == ("False", "Suspended")


@pytest.mark.parametrize(
    "memory", [{"record": "1.AAAA"}, {"record": 5}, {"files": ["a"]}, {"gpuBytes": -1}]
)
async def test_a_malformed_status_is_read_again(
    cluster: FakeCluster, operator: Operator, memory: Any
) -> None:
    await inspect(cluster, operator)

    def damage(raw: Any) -> None:
        raw["status"]["memory"] |= memory

    cluster.edit(LLAMA_SERVERS, "default", "chat", damage)
    await operator.reconcile()
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert fits(cluster)[1] == "Fits"
