"""The condition AcceleratorReady, from the start of logs and from what ended containers say."""

from pathlib import Path
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
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import CRASH_LOOP, llama_server, terminated
from slotkeeper.api.problem_reasons import ACCELERATOR_REASONS
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import LLAMA_SERVERS, PODS
from slotkeeper.llamacpp.diagnosis.diagnose import TABLE
from slotkeeper.llamacpp.diagnosis.row import Subject
from slotkeeper.reconcile.accelerators.tracker import RETRY_SECONDS

LOGS = Path(__file__).parents[2] / "llamacpp" / "diagnosis"
POD = "chat-replicas-0"
FORBIDDEN = ApiError(403, "Forbidden", "pods/log is forbidden")


def log(path: str) -> bytes:
    return (LOGS / f"{path}.txt").read_bytes().partition(b"\n")[2]


CUDA = log("starts/cuda-b10145")
CPU = log("starts/cpu-b11669-with-rpc")


def started(cluster: FakeCluster, number: int = 1, pod: str = POD) -> None:
    """A container of llama-server has started for this time, and is ready."""

    def change(item: Any) -> None:
        [status] = [
            each for each in item["status"]["containerStatuses"] if each["name"] == "llama-server"
        ]
        state = {"running": {"startedAt": f"2026-11-01T11:{number:02}:00Z"}}
        status.update(ready=True, state=state, containerID=f"containerd://{pod}-{number}")

    cluster.edit(PODS, KEY.namespace, pod, change)


async def deploy_started(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    await deploy(cluster, operator, **spec)
    for index in range(spec.get("replicas", 1)):
        started(cluster, pod=f"chat-replicas-{index}")
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(4)


def shown(cluster: FakeCluster) -> tuple[str, str]:
    found = condition(cluster, "AcceleratorReady")
    return found["status"], found["reason"]


def message(cluster: FakeCluster) -> str:
    return str(condition(cluster, "AcceleratorReady")["message"])


def reason(cluster: FakeCluster, kind: str) -> str:
    return str(condition(cluster, kind)["reason"])


def test_each_diagnosis_of_an_accelerator_is_a_reason() -> None:
    found = [row.reason for row in TABLE if row.subject is Subject.ACCELERATOR]

    assert found == [*ACCELERATOR_REASONS]


async def test_a_server_without_gpus_has_no_such_condition(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_started(cluster, operator, gpu={"count": 0})

    types = {each["type"] for each in server_status(cluster)["conditions"]}
    assert "AcceleratorReady" not in types
    assert cluster.log_reads == []


async def test_the_log_of_a_replica_confirms_its_gpus(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    assert shown(cluster) == ("Unknown", "NoReplica")
    cluster.logs[POD] = CUDA

    started(cluster)
    await operator.run_for(4)

    assert shown(cluster) == ("True", "DevicesFound")
    assert message(cluster) == f"replica {POD} uses CUDA0 (NVIDIA GeForce RTX 5090)"
    assert reason(cluster, "Degraded") == "AsExpected"
    await operator.run_for(60)
    assert cluster.log_reads == [("default", POD, "llama-server")]


async def test_a_replica_on_the_cpu_is_ready_and_degraded(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = CPU

    await deploy_started(cluster, operator)

    assert shown(cluster) == ("False", "NoDeviceFound")
    assert "devices: CPU; llama-server found no GPU, and computes on the CPU; check that the" in (
        message(cluster)
    )
    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["status"] == "True"
    assert reason(cluster, "Degraded") == "NoDeviceFound"
    assert operator.reconciler.accelerator_problems() == {"NoDeviceFound": 1}


async def test_one_replica_on_the_cpu_is_a_problem_beside_others(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs = {POD: CUDA, "chat-replicas-1": CPU}

    await deploy_started(cluster, operator, replicas=2)

    assert shown(cluster) == ("False", "NoDeviceFound")
    assert message(cluster).startswith("replica chat-replicas-1: devices: CPU;")


async def test_a_restarted_container_is_read_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = CPU
    await deploy_started(cluster, operator)
    cluster.logs[POD] = CUDA

    started(cluster, 2)
    await operator.run_for(4)

    assert shown(cluster) == ("True", "DevicesFound")
    assert len(cluster.log_reads) == 2
    assert reason(cluster, "Degraded") == "AsExpected"
    assert operator.reconciler.accelerator_problems() == {}


async def test_without_the_permission_it_is_unknown_and_tried_once_a_minute(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = FORBIDDEN
    await deploy_started(cluster, operator)
    assert shown(cluster) == ("Unknown", "LogUnavailable")
    assert "cannot be read: pods/log is forbidden" in message(cluster)
    assert reason(cluster, "Degraded") == "AsExpected"

    await operator.run_for(int(RETRY_SECONDS) - 10)
    assert len(cluster.log_reads) == 1
    cluster.logs[POD] = CUDA
    await operator.run_for(20)

    assert shown(cluster) == ("True", "DevicesFound")


async def test_a_log_that_shows_no_devices_is_unknown(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = log("starts/default-level-b11669")

    await deploy_started(cluster, operator)

    assert shown(cluster) == ("Unknown", "LogUnavailable")
    assert "less than level 4" in message(cluster)


async def test_any_bytes_are_a_log(cluster: FakeCluster, operator: Operator) -> None:
    cluster.logs[POD] = bytes(range(256)) * 400

    await deploy_started(cluster, operator)

    assert shown(cluster) == ("Unknown", "LogUnavailable")


@pytest.mark.parametrize("path", ["CUDA", "CPU"])
async def test_a_restarted_operator_keeps_what_it_knew_of_the_same_container(
    cluster: FakeCluster, operator: Operator, path: str
) -> None:
    cluster.logs[POD] = {"CUDA": CUDA, "CPU": CPU}[path]
    await deploy_started(cluster, operator)
    before = condition(cluster, "AcceleratorReady")
    # Kubernetes keeps only the end of a long log.
    cluster.logs[POD] = b"0.00.000.001 I srv  update_slots: all slots are idle\n"

    restarted = Operator(cluster, operator.time, operator.balancers)
    await restarted.reconcile()
    assert condition(cluster, "AcceleratorReady") == before
    await restarted.run_for(10)

    assert condition(cluster, "AcceleratorReady") == before
    assert len(cluster.log_reads) == 2


async def test_a_restarted_operator_keeps_nothing_of_another_container(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = CUDA
    await deploy_started(cluster, operator)

    def later(item: Any) -> None:
        [status] = item["status"]["containerStatuses"]
        status["state"] = {"running": {"startedAt": "2026-12-01T12:00:00Z"}}
        status["containerID"] = "containerd://later"

    cluster.edit(PODS, KEY.namespace, POD, later)
    restarted = Operator(cluster, operator.time, operator.balancers)
    await restarted.reconcile()

    assert shown(cluster) == ("Unknown", "Starting")


@pytest.mark.parametrize(("path", "kept"), [("CUDA", True), ("CPU", False)])
async def test_a_replica_that_was_added_does_not_end_what_is_known_of_another(
    cluster: FakeCluster, operator: Operator, path: str, kept: bool
) -> None:
    cluster.logs = dict.fromkeys((POD, "chat-replicas-1"), {"CUDA": CUDA, "CPU": CPU}[path])
    await deploy_started(cluster, operator, replicas=2)
    before = condition(cluster, "AcceleratorReady")

    def later(item: Any) -> None:
        [status] = item["status"]["containerStatuses"]
        status["state"] = {"running": {"startedAt": "2026-12-01T12:00:00Z"}}

    cluster.edit(PODS, KEY.namespace, "chat-replicas-1", later)
    cluster.logs.clear()
    restarted = Operator(cluster, operator.time, operator.balancers)
    await restarted.reconcile()

    assert (condition(cluster, "AcceleratorReady") == before) is kept


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            llama_server(
                state=CRASH_LOOP,
                lastState=terminated(log("logs/WeightsOutOfMemory").decode()),
                restartCount=3,
            ),
            "WeightsOutOfMemory",
        ),
        (llama_server(state=terminated(log("logs/NoKernelImage").decode(), 134)), "NoKernelImage"),
        (
            llama_server(
                state=terminated(log("logs/DriverMismatch").decode(), 128, reason="StartError")
            ),
            "DriverMismatch",
        ),
        (
            llama_server(
                state={
                    "waiting": {
                        "reason": "CreateContainerError",
                        "message": log("logs/DriverUnreachable.cdi").decode(),
                    }
                }
            ),
            "DriverUnreachable",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_container_that_ends_by_its_gpu_says_so(
    cluster: FakeCluster, operator: Operator, status: Any, expected: str
) -> None:
    await deploy(cluster, operator)
    set_pod_status(cluster, status)

    await operator.reconcile()

    assert shown(cluster) == ("False", expected)
    remedy = next(row.remedy for row in TABLE if row.reason == expected)
    assert message(cluster).endswith(remedy)
    # The pod's own problem has the same remedy.
    degraded = condition(cluster, "Degraded")
    assert degraded["status"] == "True"
    assert degraded["message"].endswith(remedy)


async def test_a_container_that_ends_by_something_else_says_nothing_of_its_gpu(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    unknown = log("logs/UnknownModelArchitecture").decode()
    set_pod_status(cluster, llama_server(state=terminated(unknown), restartCount=2))

    await operator.reconcile()

    assert shown(cluster) == ("Unknown", "NoReplica")
    assert "use an image with a newer build" in condition(cluster, "Degraded")["message"]


async def test_a_suspended_server_has_the_condition(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_started(cluster, operator)

    update_spec(cluster, suspend=True)
    await operator.reconcile()

    assert shown(cluster) == ("False", "Suspended")
    await operator.reconcile()
    assert operator.reconciler.accelerator_problems() == {}


async def test_a_group_needs_gpus_of_its_leader(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster)
    cluster.logs[POD] = CUDA
    started(cluster)

    await operator.reconcile()
    await operator.run_for(4)

    assert shown(cluster) == ("True", "DevicesFound")
    assert cluster.log_reads == [("default", POD, "llama-server")]


# Builds.

RDMA: dict[str, Any] = {"workers": {"count": 1, "resources": {"limits": {"rdma/hca": 1}}}}


async def poll(operator: Operator, *builds: str) -> None:
    operator.balancers.reports[BALANCER_HOST] = demand_report() | {"builds": list(builds)}
    await operator.run_for(2)


async def test_a_build_with_known_vulnerabilities_is_degraded_until_they_are_accepted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_started(cluster, operator, gpu={"count": 0})
    await poll(operator, "b8145-abc", "b12000-abc")

    degraded = condition(cluster, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "KnownVulnerableBuild")
    assert degraded["message"].startswith(
        "llama-server b8145 has published vulnerabilities: CVE-2026-27940: a crafted GGUF file "
        "overflows the heap (gguf_init_from_file) (fixed in b8146); CVE-2026-43628: a request "
        "reads out of bounds in the DRY sampler; use a newer image, or accept them"
    )
    assert condition(cluster, "Ready")["status"] == "True"

    accepted = {"slotkeeper.dev/accepted-advisories": "CVE-2026-27940, CVE-2026-43628"}

    def annotate(raw: Any) -> None:
        raw["metadata"]["annotations"] = accepted

    cluster.edit(LLAMA_SERVERS, KEY.namespace, KEY.name, annotate)
    await operator.reconcile()

    assert reason(cluster, "Degraded") == "AsExpected"


async def test_another_problem_does_not_hide_known_vulnerabilities(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.logs[POD] = CPU
    await deploy_started(cluster, operator)

    await poll(operator, "b8000-debian")

    found = condition(cluster, "Degraded")
    assert found["reason"] == "NoDeviceFound"
    first, _, second = found["message"].partition("; KnownVulnerableBuild: ")
    assert first == message(cluster)
    assert second.startswith("llama-server b8000 has published vulnerabilities: ")


@pytest.mark.parametrize(
    ("spec", "build", "degraded"),
    [
        ({}, "b11434-abc", "AsExpected"),
        ({"workers": {"count": 1}}, "b11434-abc", "AsExpected"),
        (RDMA, "b11434-abc", "KnownVulnerableBuild"),
        (RDMA, "b11865-abc", "AsExpected"),
        ({"workers": {"count": 1}}, "b8491-abc", "KnownVulnerableBuild"),
        ({"promptCache": {"emptyDir": True}}, "b9058-abc", "KnownVulnerableBuild"),
        ({}, "b1-abc", "AsExpected"),
        ({}, "anything", "AsExpected"),
    ],
)
async def test_only_what_a_server_is_exposed_to_counts(
    cluster: FakeCluster, operator: Operator, spec: Any, build: str, degraded: str
) -> None:
    apply_server(cluster, gpu={"count": 0}, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()

    await poll(operator, build)

    assert reason(cluster, "Degraded") == degraded


async def test_a_server_that_was_updated_is_not_degraded_any_more(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_started(cluster, operator, gpu={"count": 0})
    await poll(operator, "b7000-abc")
    assert reason(cluster, "Degraded") == "KnownVulnerableBuild"

    await poll(operator, "b12000-abc")

    assert reason(cluster, "Degraded") == "AsExpected"


async def test_a_restarted_operator_keeps_a_build_until_it_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_started(cluster, operator, gpu={"count": 0})
    await poll(operator, "b7000-abc")
    before = condition(cluster, "Degraded")
    cluster.writes.clear()

    restarted = Operator(cluster, operator.time)
    await restarted.reconcile()
    assert condition(cluster, "Degraded") == before
    assert cluster.writes == []
    await poll(restarted, "b12000-abc")

    assert reason(cluster, "Degraded") == "AsExpected"
