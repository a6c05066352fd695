"""Conditions: what keeps the model, the replicas or the balancers from being ready."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    edit_spec,
    event_reasons,
    pod_of,
    put_replica_set,
    roll_out,
    server_status,
    set_pod_status,
)
from pod_statuses import (
    CRASH_LOOP,
    IMAGE_NOT_FOUND,
    RUNNING,
    download,
    llama_server,
    terminated,
    unschedulable,
    volumes_not_mounted,
)
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS

KILLED_BY = "by its liveness probe if it did not respond, or from outside; see its pod's events"

NOT_FOUND = {
    "reason": "ModelNotFound",
    "message": "GET https://models.example.com/model.gguf answered 404 Not Found",
}
MODEL_NOT_FOUND = terminated(json.dumps(NOT_FOUND))

ROWS = [
    pytest.param(
        download(state=MODEL_NOT_FOUND),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="missing model",
    ),
    pytest.param(
        download(state=CRASH_LOOP, lastState=MODEL_NOT_FOUND),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="missing model, between two tries",
    ),
    pytest.param(
        download(state=RUNNING, lastState=MODEL_NOT_FOUND),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="missing model, during the next try",
    ),
    pytest.param(
        download(state=terminated(code=137, reason="OOMKilled")),
        "ModelReady",
        "OOMKilled",
        "download was killed: out of memory; increase model.download.resources.limits.memory",
        id="download out of memory",
    ),
    pytest.param(
        download(state=terminated(code=137, reason="Error")),
        "ModelReady",
        "ModelDownloadFailed",
        f"the model's download was killed (SIGKILL): {KILLED_BY}",
        id="killed download",
    ),
    pytest.param(
        download(state=RUNNING),
        "ModelReady",
        "Downloading",
        "downloading the model",
        id="running download",
    ),
    pytest.param(
        download(state=IMAGE_NOT_FOUND),
        "ReplicasReady",
        "ImagePullBackOff",
        "0 of 1 replicas ready; cannot pull image slotkeeper/download:0.1.0: not found",
        id="missing image",
    ),
    pytest.param(
        llama_server(state=CRASH_LOOP, lastState=terminated("loading\nerror: no kernel image\n")),
        "ReplicasReady",
        "CrashLoopBackOff",
        "0 of 1 replicas ready; llama-server exited with code 1: error: no kernel image",
        id="crashed llama-server, with its last line",
    ),
    pytest.param(
        llama_server(state=RUNNING, lastState=terminated(code=137, reason="OOMKilled")),
        "ReplicasReady",
        "OOMKilled",
        "0 of 1 replicas ready; llama-server was killed: out of memory; increase "
        "resources.limits.memory, or decrease slots or contextPerSlot",
        id="llama-server out of memory",
    ),
    pytest.param(
        llama_server(state=RUNNING, lastState=terminated("loading tensors", 137, reason="Error")),
        "ReplicasReady",
        "CrashLoopBackOff",
        f"0 of 1 replicas ready; llama-server was killed (SIGKILL): {KILLED_BY}",
        id="killed llama-server",
    ),
    pytest.param(
        llama_server(state=CRASH_LOOP, lastState=terminated("GGML_ASSERT(a) failed", 134)),
        "ReplicasReady",
        "CrashLoopBackOff",
        "0 of 1 replicas ready; llama-server was terminated by signal SIGABRT: "
        "GGML_ASSERT(a) failed",
        id="aborted llama-server",
    ),
    pytest.param(
        llama_server(state=CRASH_LOOP, lastState=terminated("", 255)),
        "ReplicasReady",
        "CrashLoopBackOff",
        "0 of 1 replicas ready; llama-server exited with code 255",
        id="an exit code that is no signal",
    ),
    pytest.param(
        llama_server(state=RUNNING),
        "ReplicasReady",
        "LoadingModel",
        "0 of 1 replicas ready; loading the model",
        id="loading llama-server",
    ),
    pytest.param(
        unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        "ReplicasReady",
        "Unschedulable",
        "0 of 1 replicas ready; waiting for 1 nvidia.com/gpu: "
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        id="no free GPU",
    ),
    pytest.param(
        unschedulable("0/1 nodes are available: 1 Insufficient cpu."),
        "ReplicasReady",
        "Unschedulable",
        "0 of 1 replicas ready; 0/1 nodes are available: 1 Insufficient cpu.",
        id="no free CPU",
    ),
]


async def deploy_with_pod_status(
    cluster: FakeCluster, operator: Operator, status: Manifest
) -> None:
    """Deploy a server whose only replica has this pod status."""
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, status)
    await operator.reconcile()


@pytest.mark.parametrize(("pod_status", "kind", "reason", "message"), ROWS)
async def test_what_keeps_a_replica_from_being_ready_is_a_condition(
    cluster: FakeCluster,
    operator: Operator,
    pod_status: Manifest,
    kind: str,
    reason: str,
    message: str,
) -> None:
    await deploy_with_pod_status(cluster, operator, pod_status)

    found = condition(cluster, kind)

    assert (found["status"], found["reason"], found["message"]) == ("False", reason, message)
    # Ready has the same reason: the problem's, not that of a part which waits for it.
    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert message.endswith(ready["message"])


async def test_a_problem_that_alternates_with_tries_is_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_pod_status(cluster, operator, download(state=MODEL_NOT_FOUND))
    for state in (CRASH_LOOP, RUNNING, CRASH_LOOP):
        set_pod_status(cluster, download(state=state, lastState=MODEL_NOT_FOUND))
        await operator.reconcile()

    assert event_reasons(cluster) == ["ModelNotFound"]


async def test_the_failed_download_of_an_older_spec_is_not_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_pod_status(cluster, operator, download(state=MODEL_NOT_FOUND))
    cluster.edit(
        PODS,
        "default",
        "chat-replicas-0",
        lambda pod: pod["spec"]["initContainers"][0].update(command=["slotkeeper", "download"]),
    )

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "Pending"


async def test_pods_that_a_quota_rejects_are_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    put_replica_set(cluster, cluster.by_name(DEPLOYMENTS)["chat-replicas"], "exceeded quota")

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "FailedCreate"
    assert "exceeded quota" in condition(cluster, "ReplicasReady")["message"]


async def test_a_rollout_is_not_finished_while_only_an_old_replica_is_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster)
    deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
    surge = deployment["status"] | {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    cluster.put(deployment | {"status": surge})

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "RollingOut"


async def test_replicas_above_the_minimum_need_not_be_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, autoscaling={"minReplicas": 1, "maxReplicas": 2})
    await operator.reconcile()
    roll_out(cluster)
    cluster.edit(
        DEPLOYMENTS,
        "default",
        "chat-replicas",
        lambda found: found["spec"].update(replicas=2),
    )
    roll_out(cluster)
    deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
    cluster.put(deployment | {"status": deployment["status"] | {"readyReplicas": 1}})
    second = pod_of(deployment, 1, ready=False)
    cluster.put(second | {"status": unschedulable("1 Insufficient nvidia.com/gpu.")})

    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert found["status"] == "True"
    assert found["message"].startswith("1 of 2 replicas ready; waiting for 1 nvidia.com/gpu")


async def test_a_server_with_zero_replicas_in_its_spec_is_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, replicas=0)
    await operator.reconcile()
    roll_out(cluster)

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "ScaledToZero"
    assert condition(cluster, "ModelReady")["status"] == "Unknown"
    assert condition(cluster, "Ready")["status"] == "False"


async def test_the_transition_time_changes_with_the_status_of_a_condition_only(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    before = condition(cluster, "Ready")["lastTransitionTime"]
    operator.time.elapsed += 100
    edit_spec(cluster, lambda spec: spec["model"].update(url="https://example.com/other.gguf"))

    await operator.reconcile()

    after = {found["type"]: found for found in server_status(cluster)["conditions"]}
    assert after["Ready"]["status"] == "False"
    assert after["Ready"]["lastTransitionTime"] > before
    assert after["BalancerReady"]["lastTransitionTime"] == before
    assert {found["observedGeneration"] for found in after.values()} == {2}


async def deploy_balancers(
    cluster: FakeCluster, operator: Operator, *ready: bool, status: Manifest, **spec: Any
) -> Any:
    """Deploy balancers, ready or with this pod status; return the condition BalancerReady."""
    apply_server(cluster, balancer=spec)
    await operator.reconcile()
    deployment = cluster.by_name(DEPLOYMENTS)["chat-balancer"]
    put_replica_set(cluster, deployment)
    for index, is_ready in enumerate(ready):
        pod = pod_of(deployment, index, ready=is_ready)
        cluster.put(pod if is_ready else pod | {"status": status})
    await operator.reconcile()
    return condition(cluster, "BalancerReady")


KEYS = {"apiKeys": {"secretName": "chat-keys"}}


@pytest.mark.parametrize("ready", [(True, True), (True, False)])
async def test_one_available_balancer_is_enough(
    cluster: FakeCluster, operator: Operator, ready: tuple[bool, ...]
) -> None:
    found = await deploy_balancers(cluster, operator, *ready, status={})

    assert (found["status"], found["reason"]) == ("True", "BalancerAvailable")
    assert found["message"] == f"{sum(ready)}/2 balancers available"


async def test_the_problem_of_a_second_balancer_is_in_the_message(
    cluster: FakeCluster, operator: Operator
) -> None:
    full = unschedulable("0/1 nodes are available: 1 Insufficient cpu.")

    found = await deploy_balancers(cluster, operator, True, False, status=full)

    assert found["status"] == "True"
    assert found["message"] == (
        "1/2 balancers available; 0/1 nodes are available: 1 Insufficient cpu."
    )


async def test_a_balancer_without_its_volumes_waits_for_its_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    found = await deploy_balancers(cluster, operator, False, status=volumes_not_mounted(), **KEYS)

    assert (found["status"], found["reason"]) == ("False", "WaitingForSecret")
    assert found["message"] == (
        "waiting for Secret chat-keys: create it in the server's namespace "
        "(balancer.apiKeys.secretName)"
    )


async def test_a_balancer_without_api_keys_waits_for_no_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    found = await deploy_balancers(cluster, operator, False, status=volumes_not_mounted())

    assert found["reason"] == "Starting"


async def test_a_balancer_with_its_volumes_waits_for_no_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    mounted = {"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]}

    found = await deploy_balancers(cluster, operator, False, status=mounted, **KEYS)

    assert found["reason"] == "Starting"
