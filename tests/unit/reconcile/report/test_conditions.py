"""What is wrong with a pod becomes a condition's reason and message."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, condition, pod_of, roll_out, stored
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, PODS

NOT_FOUND = {
    "reason": "ModelNotFound",
    "message": "GET https://models.example.com/model.gguf answered 404 Not Found",
}


def init(**state: Any) -> Manifest:
    status = {"name": "download", "image": "slotkeeper/download:0.1.0", "ready": False, **state}
    return {"initContainerStatuses": [status]}


def main(**state: Any) -> Manifest:
    fetched = {
        "name": "download",
        "image": "slotkeeper/download:0.1.0",
        "ready": True,
        "state": {"terminated": {"exitCode": 0}},
    }
    status = {"name": "llama-server", "image": "slotkeeper/llama-server:0.1.0", "ready": False}
    return {"initContainerStatuses": [fetched], "containerStatuses": [status | state]}


def ended(code: int, message: str, **more: Any) -> Manifest:
    return {"terminated": {"exitCode": code, "message": message, **more}}


def unschedulable(message: str) -> Manifest:
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return {"conditions": [scheduled]}


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}

ROWS = [
    pytest.param(
        init(state=ended(1, json.dumps(NOT_FOUND))),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="a model that is not there",
    ),
    pytest.param(
        init(state=BACK_OFF, lastState=ended(1, json.dumps(NOT_FOUND))),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="a model that is not there, between two tries",
    ),
    pytest.param(
        init(state={"running": {}}, lastState=ended(1, json.dumps(NOT_FOUND))),
        "ModelReady",
        NOT_FOUND["reason"],
        NOT_FOUND["message"],
        id="a model that is not there, tried again",
    ),
    pytest.param(
        init(state=ended(137, "", reason="OOMKilled")),
        "ModelReady",
        "ModelDownloadFailed",
        "the model's download was killed: it used more memory than its limit",
        id="a download that says nothing itself",
    ),
    pytest.param(
        init(state={"running": {}}),
        "ModelReady",
        "Downloading",
        "downloading the model",
        id="a download that goes on",
    ),
    pytest.param(
        init(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
        "ReplicasReady",
        "ImagePullBackOff",
        "0 of 1 replicas ready; cannot pull image slotkeeper/download:0.1.0: not found",
        id="an image that is not there",
    ),
    pytest.param(
        main(state=BACK_OFF, lastState=ended(1, "loading\nerror: no kernel image\n")),
        "ReplicasReady",
        "CrashLoopBackOff",
        "0 of 1 replicas ready; llama-server exited with code 1: error: no kernel image",
        id="a llama-server that ends, with its last line",
    ),
    pytest.param(
        main(state={"running": {}}, lastState=ended(137, "", reason="OOMKilled")),
        "ReplicasReady",
        "CrashLoopBackOff",
        "0 of 1 replicas ready; llama-server was killed: it used more memory than its limit",
        id="a llama-server out of memory",
    ),
    pytest.param(
        main(state={"running": {}}),
        "ReplicasReady",
        "LoadingModel",
        "0 of 1 replicas ready; loading the model",
        id="a llama-server that loads",
    ),
    pytest.param(
        unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        "ReplicasReady",
        "Unschedulable",
        "0 of 1 replicas ready; waiting for 1 nvidia.com/gpu: "
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        id="no GPU free",
    ),
    pytest.param(
        unschedulable("0/1 nodes are available: 1 Insufficient cpu."),
        "ReplicasReady",
        "Unschedulable",
        "0 of 1 replicas ready; 0/1 nodes are available: 1 Insufficient cpu.",
        id="no CPU free",
    ),
]


async def with_pod(cluster: FakeCluster, operator: Operator, status: Manifest) -> None:
    """A server whose only replica has this pod status."""
    stored(cluster)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"status": status})
    await operator.reconcile()


@pytest.mark.parametrize(("pod_status", "kind", "reason", "message"), ROWS)
async def test_what_keeps_a_replica_from_serving_is_said(
    cluster: FakeCluster,
    operator: Operator,
    pod_status: Manifest,
    kind: str,
    reason: str,
    message: str,
) -> None:
    await with_pod(cluster, operator, pod_status)

    found = condition(cluster, kind)

    assert (found["status"], found["reason"], found["message"]) == ("False", reason, message)
    # The sum says the same: a trouble, not what waits for it.
    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert message.endswith(ready["message"])


async def test_a_trouble_that_comes_and_goes_with_each_try_is_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await with_pod(cluster, operator, init(state=ended(1, json.dumps(NOT_FOUND))))
    states: list[Manifest] = [BACK_OFF, {"running": {}}, BACK_OFF]
    for state in states:
        pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
        cluster.put(pod | {"status": init(state=state, lastState=ended(1, json.dumps(NOT_FOUND)))})
        await operator.reconcile()

    assert [event["reason"] for event in cluster.named(EVENTS).values()] == ["ModelNotFound"]


async def test_the_failure_of_an_older_spec_says_nothing_of_the_new_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    await with_pod(cluster, operator, init(state=ended(1, json.dumps(NOT_FOUND))))
    cluster.edit(
        PODS,
        "default",
        "chat-replicas-0",
        lambda pod: pod["spec"]["initContainers"][0].update(command=["slotkeeper", "download"]),
    )

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "Pending"


async def test_pods_that_the_cluster_refuses_are_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    await operator.reconcile()
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    deployment = cluster.named(DEPLOYMENTS)["chat-replicas"]
    cluster.put(deployment | {"status": {"observedGeneration": 1, "conditions": [failure]}})

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "FailedCreate"
    assert "exceeded quota" in condition(cluster, "ReplicasReady")["message"]


async def test_an_old_replica_that_still_serves_makes_a_rollout_no_success(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    await operator.reconcile()
    roll_out(cluster)
    deployment = cluster.named(DEPLOYMENTS)["chat-replicas"]
    surge = deployment["status"] | {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    cluster.put(deployment | {"status": surge})

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "RollingOut"


async def test_a_replica_beyond_the_least_is_no_condition_of_being_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, autoscaling={"minReplicas": 1, "maxReplicas": 2})
    await operator.reconcile()
    roll_out(cluster)
    cluster.edit(
        DEPLOYMENTS,
        "default",
        "chat-replicas",
        lambda found: found["spec"].update(replicas=2),
    )
    roll_out(cluster)
    deployment = cluster.named(DEPLOYMENTS)["chat-replicas"]
    cluster.put(deployment | {"status": deployment["status"] | {"readyReplicas": 1}})
    lonely = pod_of(deployment, 1, ready=False)
    cluster.put(lonely | {"status": unschedulable("1 Insufficient nvidia.com/gpu.")})

    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert found["status"] == "True"
    assert found["message"].startswith("1 of 2 replicas ready; waiting for 1 nvidia.com/gpu")


async def test_no_replicas_are_wanted_and_none_is_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, replicas=0)
    await operator.reconcile()
    roll_out(cluster)

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "ScaledToZero"
    assert condition(cluster, "ModelReady")["status"] == "Unknown"
    assert condition(cluster, "Ready")["status"] == "False"


async def with_balancers(
    cluster: FakeCluster, operator: Operator, *ready: bool, status: Manifest, **spec: Any
) -> Any:
    """BalancerReady where each of these balancers is ready or not, the others with this status."""
    stored(cluster, balancer=spec)
    await operator.reconcile()
    deployment = cluster.named(DEPLOYMENTS)["chat-balancer"]
    for index, is_ready in enumerate(ready):
        pod = pod_of(deployment, index, ready=is_ready)
        cluster.put(pod if is_ready else pod | {"status": status})
    await operator.reconcile()
    return condition(cluster, "BalancerReady")


NO_VOLUMES = {"conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]}
KEYS = {"apiKeys": {"secretName": "chat-keys"}}


@pytest.mark.parametrize("ready", [(True, True), (True, False)])
async def test_one_of_several_balancers_takes_all_requests(
    cluster: FakeCluster, operator: Operator, ready: tuple[bool, ...]
) -> None:
    found = await with_balancers(cluster, operator, *ready, status={})

    assert (found["status"], found["reason"]) == ("True", "BalancerAvailable")
    assert found["message"] == f"{sum(ready)}/2 balancers available"


async def test_what_keeps_one_of_two_balancers_from_starting_is_said_beside(
    cluster: FakeCluster, operator: Operator
) -> None:
    full = unschedulable("0/1 nodes are available: 1 Insufficient cpu.")

    found = await with_balancers(cluster, operator, True, False, status=full)

    assert found["status"] == "True"
    assert found["message"] == (
        "1/2 balancers available; 0/1 nodes are available: 1 Insufficient cpu."
    )


async def test_a_balancer_whose_volumes_are_not_there_waits_for_its_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    found = await with_balancers(cluster, operator, False, status=NO_VOLUMES, **KEYS)

    assert (found["status"], found["reason"]) == ("False", "WaitingForSecret")
    assert "is waiting for Secret chat-keys" in found["message"]
    assert "balancer.apiKeys.secretName" in found["message"]


async def test_a_balancer_without_keys_waits_for_no_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    found = await with_balancers(cluster, operator, False, status=NO_VOLUMES)

    assert found["reason"] == "Starting"


async def test_a_balancer_that_pulls_its_image_has_its_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    started = {"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]}

    found = await with_balancers(cluster, operator, False, status=started, **KEYS)

    assert found["reason"] == "Starting"
