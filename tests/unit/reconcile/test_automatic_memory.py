"""`auto` of contextPerSlot and gpu.layers: chosen from the headers before a replica starts."""

import sys
from types import FrameType
from typing import Any

import pytest

from fake_cluster import FakeCluster
from gpu_nodes import add_gpu_node
from inspection_jobs import GIB, PARTS, RECORD, end, inspections
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    event_messages,
    published_blocker,
    roll_out,
    server_status,
    update_spec,
)
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, STATEFUL_SETS
from slotkeeper.llamacpp.memory.load import Gpus, Load
from slotkeeper.llamacpp.memory.plan import plan
from slotkeeper.reconcile.observe.memory import load_of

AUTO: dict[str, Any] = {"slots": 8, "contextPerSlot": "auto", "gpu": {"memory": "15Gi"}}


def flag(cluster: FakeCluster, name: str) -> str:
    """The value of a flag of llama-server in the Deployment of the replicas."""
    template = cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"]["template"]
    args: list[str] = template["spec"]["containers"][0]["args"]
    return args[args.index(name) + 1]


async def read_headers(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Apply a server, and let the Job report its headers."""
    apply_server(cluster, **spec)
    await operator.reconcile()
    end(cluster, {"record": RECORD})
    await operator.reconcile()


async def test_no_replica_starts_before_the_headers_are_read(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, **AUTO)
    await operator.reconcile()
    before = set(cluster.by_name(DEPLOYMENTS))
    waiting = condition(cluster, "ReplicasReady")
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert before == {"chat-balancer"}
    assert (waiting["status"], waiting["reason"]) == ("False", "ReadingHeader")
    assert set(cluster.by_name(DEPLOYMENTS)) == {"chat-balancer", "chat-replicas"}
    memory = server_status(cluster)["memory"]
    context = memory["contextPerSlot"]
    assert flag(cluster, "--ctx-size") == str(context * 8)
    assert context % 256 == 0
    assert "gpuLayers" not in memory
    fits = condition(cluster, "FitsMemory")
    assert fits["status"] == "True"
    assert fits["message"].startswith(f"8 slots x {context} tokens need 1")
    assert _needed(8, context) <= 15 * GIB < _needed(8, context + 256)
    assert inspections(cluster) == []


def _needed(slots: int, context: int) -> int:
    return plan(PARTS, Load(slots, context, gpus=Gpus((15 * GIB,)))).gpus[0].total


async def test_the_most_layers_that_fit_are_on_the_gpus(
    cluster: FakeCluster, operator: Operator
) -> None:
    gpu = {"memory": "6Gi", "layers": "auto"}
    await read_headers(cluster, operator, slots=2, contextPerSlot=8192, gpu=gpu)

    assert server_status(cluster)["memory"]["gpuLayers"] == 17
    assert flag(cluster, "--n-gpu-layers") == "17"
    fits = condition(cluster, "FitsMemory")
    assert fits["status"] == "True"
    assert fits["message"].startswith("2 slots x 8192 tokens with 17 of 33 layers on GPUs need ")


@pytest.mark.parametrize(
    ("memory", "context", "layers"),
    [
        pytest.param("80Gi", 131_072, 33, id="all"),
        pytest.param("15Gi", 12_544, 33, id="all layers"),
        pytest.param("6Gi", 4096, 17, id="the default context"),
    ],
)
async def test_both_prefer_all_layers_to_a_long_context(
    cluster: FakeCluster, operator: Operator, memory: str, context: int, layers: int
) -> None:
    gpu = {"memory": memory, "layers": "auto"}
    await read_headers(cluster, operator, slots=4, contextPerSlot="auto", gpu=gpu)

    found = server_status(cluster)["memory"]
    assert (found["contextPerSlot"], found["gpuLayers"]) == (context, layers)
    assert condition(cluster, "FitsMemory")["status"] == "True"


async def test_what_fits_nowhere_is_a_permanent_problem(
    cluster: FakeCluster, operator: Operator
) -> None:
    await read_headers(cluster, operator, **AUTO | {"gpu": {"memory": "6Gi"}})

    message = (
        "no context of 256 tokens fits into the GPUs with 8 slots: the weights need 8.3 GiB, the "
        "driver 500 MiB of each GPU, and each GPU has 6.0 GiB; lower slots, use larger GPUs, or "
        "set a number, with which replicas start although it does not fit by the plan"
    )
    for kind in ("ReplicasReady", "FitsMemory", "Ready"):
        found = condition(cluster, kind)
        assert (found["status"], found["reason"]) == ("False", "DoesNotFit")
        assert found["message"] == message
    assert event_messages(cluster, "DoesNotFit") == [message]
    assert "chat-replicas" not in cluster.by_name(DEPLOYMENTS)
    blocker = published_blocker(cluster)
    assert blocker
    assert (blocker.reason, blocker.permanent) == ("DoesNotFit", True)
    update_spec(cluster, contextPerSlot=4096)
    await operator.reconcile()
    assert "chat-replicas" in cluster.by_name(DEPLOYMENTS)
    assert published_blocker(cluster) is None


async def test_what_fits_nowhere_is_planned_once(cluster: FakeCluster, operator: Operator) -> None:
    await read_headers(cluster, operator, **AUTO | {"gpu": {"memory": "6Gi"}})
    plans = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal plans
        plans += event == "call" and frame.f_code is plan.__code__

    sys.setprofile(count)
    try:
        await operator.reconcile()
    finally:
        sys.setprofile(None)

    assert plans == 0


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {"gpu": {}},
            (
                "the memory of the GPUs is not known: no node has the label nvidia.com/gpu.memory, "
                "which GPU feature discovery sets; set gpu.memory, or"
            ),
        ),
        (
            {"model": {"url": "image:///model.gguf"}},
            "memory is not planned: a file of the model is in llama-server's image;",
        ),
        (
            {"gpu": {"memory": "15Gi", "count": 128}},
            None,
        ),
    ],
)
async def test_without_a_plan_a_number_has_to_be_set(
    cluster: FakeCluster, operator: Operator, spec: Any, why: str | None
) -> None:
    apply_server(cluster, **AUTO | spec)
    await operator.reconcile()
    if why is None:
        end(cluster, {"record": RECORD})
        await operator.reconcile()
        why = "memory is not planned: more than 32 GPUs of a replica are not planned;"

    found = condition(cluster, "ReplicasReady")
    assert (found["status"], found["reason"]) == ("False", "AutoNotChosen")
    assert found["message"] == (
        f"auto of contextPerSlot cannot be chosen, because {why} set a number instead"
    )
    assert condition(cluster, "FitsMemory")["status"] == "Unknown"
    assert condition(cluster, "Degraded")["reason"] == "AutoNotChosen"
    assert "chat-replicas" not in cluster.by_name(DEPLOYMENTS)


async def test_a_node_that_is_added_ends_the_wait_for_its_memory(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, **AUTO | {"gpu": {}})
    await operator.reconcile()
    add_gpu_node(cluster, "a", "15360")
    await operator.run_for(65)

    assert condition(cluster, "ReplicasReady")["reason"] == "ReadingHeader"
    assert inspections(cluster)


async def test_smaller_nodes_do_not_change_a_choice(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "large", "15360")
    await read_headers(cluster, operator, **AUTO | {"gpu": {}})
    chosen = server_status(cluster)["memory"]["contextPerSlot"]
    add_gpu_node(cluster, "small", "10240")
    operator.time.elapsed += 60
    await operator.reconcile()
    changed = server_status(cluster)["memory"]["contextPerSlot"]
    update_spec(cluster, slots=4)
    await operator.reconcile()

    assert changed == chosen
    assert flag(cluster, "--parallel") == "4"
    assert server_status(cluster)["memory"]["contextPerSlot"] < chosen


async def test_a_choice_is_in_the_status_before_a_replica_has_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    add_gpu_node(cluster, "large", "15360")
    apply_server(cluster, **AUTO | {"gpu": {}})
    await operator.reconcile()
    end(cluster, {"record": RECORD})
    cluster.fail(ApiError(500, "InternalError", "etcd"), "patch_status")
    with pytest.raises(ApiError):
        await operator.reconcile()
    early = set(cluster.by_name(DEPLOYMENTS))

    cluster.recover()
    add_gpu_node(cluster, "small", "12288")
    operator.time.elapsed += 60
    restarted = Operator(cluster, operator.time)
    await restarted.reconcile()

    assert early == {"chat-balancer"}
    chosen = server_status(cluster)["memory"]["contextPerSlot"]
    assert flag(cluster, "--ctx-size") == str(8 * chosen)
    assert _needed(8, chosen) <= 12 * GIB < _needed(8, chosen + 256)
    versions = {
        tuple(change.after["spec"]["template"]["spec"]["containers"][0]["args"])
        for change in cluster.history
        if change.after and change.after["metadata"]["name"] == "chat-replicas"
        if change.after["kind"] == "Deployment"
    }
    assert len(versions) == 1


async def test_a_restarted_operator_keeps_the_choice(
    cluster: FakeCluster, operator: Operator
) -> None:
    await read_headers(cluster, operator, **AUTO)
    roll_out(cluster)
    await operator.reconcile()
    cluster.writes.clear()

    await Operator(cluster, operator.time).reconcile()

    assert cluster.writes == []


async def test_running_replicas_are_kept_until_there_is_a_choice(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, autoscaling={"minReplicas": 1, "maxReplicas": 3}, gpu={"count": 1})
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=4)
    await operator.run_for(2)
    before = cluster.by_name(DEPLOYMENTS)

    update_spec(cluster, contextPerSlot="auto", gpu={"memory": "15Gi"})
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=4, busy=4, queued=9)
    passes = len(operator.passes)
    await operator.run_for(20)

    assert cluster.by_name(DEPLOYMENTS) == before
    assert condition(cluster, "Ready")["reason"] == "ReadingHeader"
    assert len(operator.passes) - passes < 30
    assert published_blocker(cluster) is None
    assert len(server_status(cluster)["scaling"].get("history", [])) <= 1
    end(cluster, {"record": RECORD})
    await operator.reconcile()
    assert cluster.by_name(DEPLOYMENTS) != before


@pytest.mark.parametrize("change", [{"suspend": True}, {"replicas": 0}])
async def test_replicas_that_are_not_desired_do_not_wait_for_a_choice(
    cluster: FakeCluster, operator: Operator, change: Any
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster)

    update_spec(cluster, **AUTO, **change)
    await operator.reconcile()

    assert cluster.by_name(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 0


async def test_a_group_of_pods_waits_too(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, **AUTO, workers={"count": 1})
    await operator.reconcile()
    before = set(cluster.by_name(STATEFUL_SETS))
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert before == set()
    assert set(cluster.by_name(STATEFUL_SETS)) == {"chat-replicas", "chat-worker-0"}
    # Two GPUs have space for more than twice the context of one.
    assert server_status(cluster)["memory"]["contextPerSlot"] > 12_000


@pytest.mark.parametrize("choice", ["auto", -1, None, 2**40])
async def test_a_damaged_choice_is_made_again(
    cluster: FakeCluster, operator: Operator, choice: Any
) -> None:
    await read_headers(cluster, operator, **AUTO)
    chosen = server_status(cluster)["memory"]["contextPerSlot"]

    def damage(raw: Any) -> None:
        raw["status"]["memory"]["contextPerSlot"] = choice

    cluster.edit(LLAMA_SERVERS, "default", "chat", damage)
    await operator.reconcile()
    if inspections(cluster):
        end(cluster, {"record": RECORD})
        await operator.reconcile()

    assert server_status(cluster)["memory"]["contextPerSlot"] == chosen
    assert flag(cluster, "--ctx-size") == str(8 * chosen)


def test_the_settings_of_a_server_are_planned() -> None:
    raw = {
        "metadata": {"name": "chat", "namespace": "default", "uid": "1"},
        "spec": {
            "model": {"url": "https://models.example.com/model.gguf"},
            "slots": 2,
            "kvCacheType": "q8_0",
            "flashAttention": "enabled",
            "extraArgs": ["-ub", "256", "--batch-size", "1024"],
            "gpu": {"count": 2, "layers": 20, "splitMode": "row", "tensorSplit": [1, 2, 3, 4]},
            "workers": {"count": 1},
        },
    }

    load = load_of(LlamaServer.parse(raw), 8 * GIB)

    gpus = Gpus((8 * GIB,) * 4, 20, "row", (1, 2, 3, 4), remote=2)
    assert load == Load(2, 4096, "q8_0", True, 1024, 256, gpus=gpus)
