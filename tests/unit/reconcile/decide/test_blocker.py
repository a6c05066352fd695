"""Start blockers: pods that keep every replica from starting, published on the balancers' Role."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    pod_of,
    published_blocker,
    put_replica_set,
    replica_count,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import (
    CRASH_LOOP,
    IMAGE_NOT_FOUND,
    RUNNING,
    download,
    download_error,
    llama_server,
    terminated,
    unschedulable,
    volumes_not_mounted,
)
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.api.problem_reasons import PERMANENT, PERMANENT_WHEN_LOOPING
from slotkeeper.api.reason_doc import Severity
from slotkeeper.api.reasons import severity
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, ROLES, STATEFUL_SETS

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = unschedulable(NO_GPU)
MODEL_NOT_FOUND = download(
    state=download_error("ModelNotFound", "GET https://example.com/a answered 404")
)
CRASHED = terminated("error: no kernel image")


def ran_for(minutes: int) -> Manifest:
    """The state of a llama-server that crashed after that time."""
    return terminated(
        "error: no kernel image",
        startedAt="2026-11-01T12:00:00Z",
        finishedAt=f"2026-11-01T12:{minutes:02}:00Z",
    )


ROWS = [
    pytest.param(MODEL_NOT_FOUND, "ModelNotFound", True, id="missing model"),
    pytest.param(
        download(state=IMAGE_NOT_FOUND),
        "ImagePullBackOff",
        True,
        id="missing image",
    ),
    pytest.param(UNSCHEDULABLE, "Unschedulable", False, id="no free GPU"),
    pytest.param(
        download(state=download_error("ModelUnreachable", "refused")),
        "ModelUnreachable",
        False,
        id="unreachable host",
    ),
    pytest.param(llama_server(state=CRASHED), "CrashLoopBackOff", False, id="first crash"),
    pytest.param(
        llama_server(state=RUNNING, lastState=CRASHED, restartCount=1),
        "CrashLoopBackOff",
        False,
        id="first restart",
    ),
    pytest.param(
        llama_server(state=CRASH_LOOP, lastState=CRASHED, restartCount=1),
        "CrashLoopBackOff",
        True,
        id="crash loop",
    ),
    pytest.param(
        llama_server(state=RUNNING, lastState=ran_for(2), restartCount=2),
        "CrashLoopBackOff",
        True,
        id="crash loop with two minutes of loading",
    ),
    pytest.param(
        llama_server(state=RUNNING, lastState=ran_for(10), restartCount=7),
        "CrashLoopBackOff",
        False,
        id="crash after ten minutes",
    ),
    pytest.param(
        download(state=CRASH_LOOP, lastState=terminated(), restartCount=1),
        "ModelDownloadFailed",
        True,
        id="download in a crash loop",
    ),
]


async def deploy_failing(
    cluster: FakeCluster, operator: Operator, *statuses: Manifest, **spec: Any
) -> None:
    """Deploy a server with a replica for each of these pod statuses."""
    apply_server(cluster, replicas=len(statuses), **spec)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    for index, status in enumerate(statuses):
        set_pod_status(cluster, status, index)
    await operator.reconcile()


@pytest.mark.parametrize(("status", "reason", "permanent"), ROWS)
async def test_the_problem_of_the_only_replica_is_the_start_blocker(
    cluster: FakeCluster, operator: Operator, status: Manifest, reason: str, permanent: bool
) -> None:
    await deploy_failing(cluster, operator, status)

    blocker = published_blocker(cluster)

    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == (reason, permanent)


async def test_the_message_contains_the_number_of_missing_gpus(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, UNSCHEDULABLE)

    blocker = published_blocker(cluster)

    assert blocker is not None
    assert blocker.message == f"waiting for 1 nvidia.com/gpu: {NO_GPU}"


async def test_a_starting_replica_means_no_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, MODEL_NOT_FOUND, llama_server(state=RUNNING))

    assert published_blocker(cluster) is None


async def test_a_start_blocker_is_not_permanent_while_one_replica_may_still_start(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, MODEL_NOT_FOUND, UNSCHEDULABLE)

    blocker = published_blocker(cluster)

    assert blocker is not None
    assert not blocker.permanent


async def test_the_problem_of_a_worker_blocks_its_whole_group(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    worker = pod_of(cluster.by_name(STATEFUL_SETS)["chat-worker-0"], ready=False)
    cluster.put(worker | {"status": UNSCHEDULABLE})
    for name in ("chat-replicas-0", "chat-worker-0-0"):
        cluster.edit(
            PODS,
            "default",
            name,
            lambda pod: pod["metadata"].update(
                labels=pod["metadata"]["labels"] | {"apps.kubernetes.io/pod-index": "0"}
            ),
        )

    await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert blocker.reason == "Unschedulable"


@pytest.mark.parametrize(
    ("worker_ready_at", "permanent"),
    [
        pytest.param(None, False, id="the worker is away"),
        pytest.param("2026-01-01T00:01:20Z", False, id="it is back, and the leader in back-off"),
        pytest.param("2026-01-01T00:01:10Z", False, id="it was back in the same second"),
        pytest.param("2026-01-01T00:00:41Z", False, id="its name did not yet resolve"),
        pytest.param("2026-01-01T00:00:39Z", True, id="it was there"),
    ],
)
async def test_a_leader_that_ends_while_its_worker_is_away_blocks_for_a_time_only(
    cluster: FakeCluster, operator: Operator, worker_ready_at: str | None, permanent: bool
) -> None:
    apply_server(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    ready = {"type": "Ready", "status": "False"}
    if worker_ready_at:
        ready |= {"status": "True", "lastTransitionTime": worker_ready_at}
    crashed = terminated(
        code=134, startedAt="2026-01-01T00:01:08Z", finishedAt="2026-01-01T00:01:10Z"
    )
    statuses = {
        "chat-replicas-0": llama_server(state=CRASH_LOOP, lastState=crashed, restartCount=2),
        "chat-worker-0-0": {"conditions": [ready]},
    }
    for name, status in statuses.items():
        cluster.edit(
            PODS,
            "default",
            name,
            lambda pod, status=status: pod.update(  # type: ignore[misc]
                status=status,
                metadata=pod["metadata"]
                | {"labels": pod["metadata"]["labels"] | {"apps.kubernetes.io/pod-index": "0"}},
            ),
        )

    await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("CrashLoopBackOff", permanent)


async def test_a_quota_that_rejects_all_pods_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    put_replica_set(cluster, cluster.by_name(DEPLOYMENTS)["chat-replicas"], "exceeded quota")

    await operator.reconcile()

    expected = StartBlocker("FailedCreate", "exceeded quota", permanent=False)
    assert published_blocker(cluster) == expected


WITH_TOKEN = {"model": {"url": "https://example.com/a.gguf", "tokenSecretRef": {"name": "gate"}}}
SINCE_START = {"lastTransitionTime": "2026-11-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("seconds", "since", "reason"),
    [
        pytest.param(59, SINCE_START, "WaitingForSecret", id="a disk may be attached"),
        pytest.param(60, SINCE_START, "SecretNotFound", id="nothing else takes so long"),
        pytest.param(600, {}, "WaitingForSecret", id="a kubelet that reports no time"),
    ],
)
async def test_a_missing_secret_of_the_model_is_a_start_blocker(
    cluster: FakeCluster, operator: Operator, seconds: int, since: dict[str, str], reason: str
) -> None:
    await deploy_failing(cluster, operator, volumes_not_mounted(**since), **WITH_TOKEN)
    await operator.run_for(seconds)

    blocker = published_blocker(cluster)

    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == (reason, reason == "SecretNotFound")
    assert "Secret gate" in blocker.message
    assert "model.tokenSecretRef" in blocker.message


async def test_the_start_blocker_is_withdrawn_when_the_secret_is_mounted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, volumes_not_mounted(**SINCE_START), **WITH_TOKEN)
    await operator.run_for(60)
    set_pod_status(cluster, llama_server(state=RUNNING))

    await operator.reconcile()
    cluster.writes.clear()
    await operator.run_for(60)

    assert published_blocker(cluster) is None
    assert cluster.writes == []


async def test_a_pod_without_volumes_waits_for_no_secret_where_the_spec_names_none(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, volumes_not_mounted(**SINCE_START))
    await operator.run_for(60)

    assert published_blocker(cluster) is None


async def test_the_start_blocker_is_withdrawn_when_a_replica_is_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, MODEL_NOT_FOUND)
    roll_out(cluster)

    await operator.reconcile()

    assert published_blocker(cluster) is None


def put_new_replica_set(cluster: FakeCluster) -> str:
    """The current template gets its own ReplicaSet beside that of the old one; returns its uid."""
    deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
    generation = {"observedGeneration": deployment["metadata"]["generation"]}
    cluster.put(deployment | {"status": deployment["status"] | generation})
    old = cluster.by_name(REPLICA_SETS)["chat-replicas"]
    metadata = old["metadata"] | {"name": "chat-replicas-new", "uid": "new"}
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"] | {"pod-template-hash": "1"}
    template = template | {"metadata": template["metadata"] | {"labels": labels}}
    spec = {"replicas": 1, "template": template}
    cluster.put(old | {"metadata": metadata, "spec": spec, "status": {"replicas": 0}})
    return "new"


def put_new_pod(cluster: FakeCluster, status: Manifest) -> None:
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], 7, ready=False)
    owner = {"controller": True, "uid": put_new_replica_set(cluster)}
    metadata = pod["metadata"] | {"ownerReferences": [owner]}
    cluster.put(pod | {"metadata": metadata, "status": status})


async def test_a_permanent_error_of_the_current_spec_is_not_hidden_by_an_old_pending_pod(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, UNSCHEDULABLE)
    # With the same model: a pod counts by its whole template.
    update_spec(cluster, gpu={"count": 0})
    await operator.reconcile()
    put_new_pod(cluster, MODEL_NOT_FOUND)
    await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("ModelNotFound", True)
    assert condition(cluster, "ReplicasReady")["reason"] == "ModelNotFound"


async def test_an_old_pending_pod_is_no_problem_of_a_spec_whose_pod_starts(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, UNSCHEDULABLE)
    update_spec(cluster, gpu={"count": 0})
    await operator.reconcile()
    put_new_pod(cluster, llama_server(state=RUNNING))
    await operator.reconcile()

    assert published_blocker(cluster) is None
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_refused_pods_of_the_current_spec_come_before_the_problem_of_an_old_pod(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, UNSCHEDULABLE)
    update_spec(cluster, gpu={"count": 0})
    await operator.reconcile()
    put_new_replica_set(cluster)
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    new = cluster.by_name(REPLICA_SETS)["chat-replicas-new"]
    cluster.put(new | {"status": {"conditions": [failure]}})
    await operator.reconcile()

    assert published_blocker(cluster) == StartBlocker("FailedCreate", "exceeded quota", False)


async def test_the_pods_of_a_groups_current_revision_count(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, replicas=2, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    for name in ("chat-replicas", "chat-worker-0"):
        owner = cluster.by_name(STATEFUL_SETS)[name]
        cluster.put(owner | {"status": owner["status"] | {"updateRevision": "new"}})
        for index, revision, status in ((0, "old", UNSCHEDULABLE), (1, "new", MODEL_NOT_FOUND)):
            pod = pod_of(owner, index, ready=False)
            labels = {
                "controller-revision-hash": revision,
                names.POD_INDEX_LABEL: str(index),
            }
            metadata = pod["metadata"] | {"labels": pod["metadata"]["labels"] | labels}
            cluster.put(pod | {"metadata": metadata, "status": status})
    await operator.reconcile()

    blocker = published_blocker(cluster)
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("ModelNotFound", True)


async def test_the_start_blocker_is_written_once(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_failing(cluster, operator, MODEL_NOT_FOUND)
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []


async def test_a_start_blocker_that_others_remove_is_restored(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_failing(cluster, operator, MODEL_NOT_FOUND)
    cluster.edit(
        ROLES,
        "default",
        "chat-balancer",
        lambda role: role["metadata"]["annotations"].pop(START_BLOCKER_ANNOTATION),
    )

    await operator.reconcile()

    assert published_blocker(cluster) is not None


async def test_a_failed_wake_from_zero_ends_when_idle_and_a_request_wakes_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    to_zero = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30}
    await deploy(cluster, operator, autoscaling=to_zero)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)
    set_pod_status(cluster, MODEL_NOT_FOUND)
    await operator.reconcile()
    published = published_blocker(cluster)

    # Requests are rejected, and count as demand all the same: the replica is kept.
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0) | {"peakDemand": 1}
    await operator.run_for(60)
    with_requests = replica_count(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(32)
    when_idle = replica_count(cluster)
    cluster.remove(PODS, "default", "chat-replicas-0")
    await operator.reconcile()
    at_zero = published_blocker(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)

    assert published is not None
    assert at_zero is None
    assert (with_requests, when_idle) == (1, 0)
    assert server_status(cluster)["scaling"]["message"].endswith("0 -> 1")


def test_only_problems_are_permanent() -> None:
    assert {severity(reason) for reason in PERMANENT | PERMANENT_WHEN_LOOPING} == {Severity.PROBLEM}
