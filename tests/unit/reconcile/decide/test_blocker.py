"""What keeps all replicas from starting stands on the Lease that the balancers watch."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    change_spec,
    condition,
    numbers,
    pod_of,
    roll_out,
    server_status,
    stored,
)
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.api.reasons import PERMANENT, PERMANENT_WHEN_LOOPING, Severity, severity
from slotkeeper.kube.cluster import ApiError, Conflict, Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, LEASES, PODS, STATEFUL_SETS
from slotkeeper.reconcile.workqueue import RetryError

GATED = {"model": {"url": "https://example.com/a.gguf", "tokenSecretRef": {"name": "gate"}}}
NOT_FOUND = {"reason": "ModelNotFound", "message": "GET https://example.com/a answered 404"}
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def container(name: str, **status: Any) -> Manifest:
    return {"name": name, "image": "slotkeeper/image:1", "ready": False, **status}


def init(**status: Any) -> Manifest:
    return {"initContainerStatuses": [container("download", **status)]}


def main(**status: Any) -> Manifest:
    fetched = container("download", state={"terminated": {"exitCode": 0}})
    return {
        "initContainerStatuses": [fetched],
        "containerStatuses": [container("llama-server", **status)],
    }


def ended(**said: Any) -> Manifest:
    return {"terminated": {"exitCode": 1, "message": "error: no kernel image", **said}}


def ran(minutes: int) -> Manifest:
    return ended(startedAt="2026-11-01T12:00:00Z", finishedAt=f"2026-11-01T12:{minutes:02}:00Z")


NOT_THERE = init(state=ended(message=json.dumps(NOT_FOUND)))
UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": NO_GPU,
        }
    ]
}
AGAIN = {"waiting": {"reason": "CrashLoopBackOff"}}
RUNNING: Manifest = {"running": {}}

ROWS = [
    pytest.param(NOT_THERE, "ModelNotFound", True, id="a model that is not there"),
    pytest.param(
        init(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
        "ImagePullBackOff",
        True,
        id="an image that is not there",
    ),
    pytest.param(UNSCHEDULABLE, "Unschedulable", False, id="no GPU free"),
    pytest.param(
        init(state=ended(message=json.dumps({"reason": "ModelUnreachable", "message": "refused"}))),
        "ModelUnreachable",
        False,
        id="a host that is away",
    ),
    pytest.param(main(state=ended()), "CrashLoopBackOff", False, id="it ended for the first time"),
    pytest.param(
        main(state=RUNNING, lastState=ended(), restartCount=1),
        "CrashLoopBackOff",
        False,
        id="it is tried once more",
    ),
    pytest.param(
        main(state=AGAIN, lastState=ended(), restartCount=1),
        "CrashLoopBackOff",
        True,
        id="it ended again",
    ),
    pytest.param(
        main(state=RUNNING, lastState=ran(2), restartCount=2),
        "CrashLoopBackOff",
        True,
        id="it ended again, after loading for two minutes",
    ),
    pytest.param(
        main(state=RUNNING, lastState=ran(10), restartCount=7),
        "CrashLoopBackOff",
        False,
        id="it ended after a good time",
    ),
    pytest.param(
        init(state=AGAIN, lastState=ended(message=""), restartCount=1),
        "ModelDownloadFailed",
        True,
        id="a download that ends again and again",
    ),
]


def obstacle(cluster: FakeCluster) -> StartBlocker | None:
    """What the Lease says."""
    metadata = cluster.named(LEASES)["chat-balancer"]["metadata"]
    return StartBlocker.from_annotation(metadata["annotations"].get(START_BLOCKER_ANNOTATION))


async def failing(
    cluster: FakeCluster, operator: Operator, *statuses: Manifest, **spec: Any
) -> None:
    """A server whose replicas' pods have these statuses."""
    stored(cluster, replicas=len(statuses), **spec)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    for index, status in enumerate(statuses):
        pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], index, ready=False)
        cluster.put(pod | {"status": status})
    await operator.reconcile()


@pytest.mark.parametrize(("status", "reason", "permanent"), ROWS)
async def test_what_keeps_the_only_replica_is_said(
    cluster: FakeCluster, operator: Operator, status: Manifest, reason: str, permanent: bool
) -> None:
    await failing(cluster, operator, status)

    found = obstacle(cluster)

    assert found is not None
    assert (found.reason, found.permanent) == (reason, permanent)


async def test_clients_are_told_how_many_gpus_are_waited_for(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, UNSCHEDULABLE)

    found = obstacle(cluster)

    assert found is not None
    assert found.message == f"waiting for 1 nvidia.com/gpu: {NO_GPU}"


async def test_nothing_is_in_the_way_of_a_replica_that_starts(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, NOT_THERE, main(state=RUNNING))

    assert obstacle(cluster) is None


async def test_two_in_different_trouble_may_come_while_one_of_them_may(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, NOT_THERE, UNSCHEDULABLE)

    found = obstacle(cluster)

    assert found is not None
    assert not found.permanent


async def test_a_group_cannot_start_without_its_worker(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, workers={"count": 1})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    worker = pod_of(cluster.named(STATEFUL_SETS)["chat-worker-0"], ready=False)
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

    found = obstacle(cluster)
    assert found is not None
    assert found.reason == "Unschedulable"


async def test_a_quota_that_refuses_all_pods_is_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    await operator.reconcile()
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    deployment = cluster.named(DEPLOYMENTS)["chat-replicas"]
    cluster.put(deployment | {"status": {"observedGeneration": 1, "conditions": [failure]}})

    await operator.reconcile()

    assert obstacle(cluster) == StartBlocker("FailedCreate", "exceeded quota", permanent=False)


POLICY = ApiError(403, "Forbidden", "denied by policy `no-gpus`: ask for it")


def refuse(cluster: FakeCluster, kind: str, error: ApiError = POLICY) -> None:
    """Writes of this kind are refused from now on."""
    cluster.refuse = lambda verb, item: error if (verb, item["kind"]) == ("apply", kind) else None


async def wake(cluster: FakeCluster, operator: Operator) -> None:
    """A server at zero for which a request has come, and a reconcile that is refused."""
    stored(cluster, autoscaling={"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30})
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    refuse(cluster, "Deployment")
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)


async def test_a_wake_that_the_api_server_refuses_is_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    await wake(cluster, operator)

    assert obstacle(cluster) == StartBlocker("ApplyRejected", POLICY.message, permanent=True)
    assert condition(cluster, "Ready")["message"] == POLICY.message


async def test_a_refusal_is_tried_again_and_said_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    await wake(cluster, operator)
    before, events = server_status(cluster), len(cluster.named(EVENTS))
    cluster.writes.clear()

    for _ in range(3):
        operator.time.passed += 20
        await operator.runtime.poll_demand()
        with pytest.raises(ApiError):
            await operator.reconcile()

    assert cluster.writes == []
    assert server_status(cluster) == before
    assert len(cluster.named(EVENTS)) == events
    [decision] = before["scaling"]["history"]
    assert (decision["from"], decision["to"]) == (0, 1)


async def test_a_refusal_that_is_mended_is_said_no_longer(
    cluster: FakeCluster, operator: Operator
) -> None:
    await wake(cluster, operator)
    cluster.refuse = lambda *_: None

    await operator.reconcile()

    assert obstacle(cluster) is None
    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 1


async def test_a_refusal_that_nobody_asks_for_any_more_is_said_no_longer(
    cluster: FakeCluster, operator: Operator
) -> None:
    await wake(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(total=0)
    await operator.pass_time(1)

    await operator.reconcile()

    assert obstacle(cluster) is None


async def test_a_webhook_that_is_away_is_said(cluster: FakeCluster, operator: Operator) -> None:
    stored(cluster)
    said = 'Internal error occurred: failed calling webhook "policy.example.com": refused'
    refuse(cluster, "Deployment", ApiError(500, "InternalError", said))

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert obstacle(cluster) == StartBlocker("ApplyRejected", said, permanent=True)


async def test_an_api_server_in_trouble_is_no_refusal(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    refuse(cluster, "Deployment", ApiError(500, "InternalError", "etcdserver: leader changed"))

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert obstacle(cluster) is None


async def test_a_first_replica_that_is_refused_is_said(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, workers={"count": 1})
    refuse(cluster, "StatefulSet")

    with pytest.raises(ApiError):
        await operator.reconcile()

    found = obstacle(cluster)
    assert found is not None
    assert (found.reason, found.permanent) == ("ApplyRejected", True)


async def test_a_lease_that_is_refused_as_well_keeps_nothing_from_the_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    cluster.refuse = lambda verb, _: POLICY if verb == "apply" else None

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "ApplyRejected"


async def test_a_name_that_is_taken_is_said(cluster: FakeCluster, operator: Operator) -> None:
    cluster.put(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "chat-replicas", "namespace": "default"},
            "spec": {"replicas": 1},
        }
    )
    stored(cluster)

    for _ in range(2):
        with pytest.raises((Conflict, RetryError)):
            await operator.reconcile()

    found = obstacle(cluster)
    assert found is not None
    assert (found.reason, found.permanent) == ("NameConflict", True)


async def test_a_refused_change_is_no_news_where_a_replica_serves(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    await operator.reconcile()
    roll_out(cluster)
    refuse(cluster, "Deployment")
    change_spec(cluster, lambda spec: spec.update(slots=8))

    with pytest.raises(ApiError):
        await operator.reconcile()

    assert obstacle(cluster) is None


def no_volumes(**said: str) -> Manifest:
    lacking = {"type": "PodReadyToStartContainers", "status": "False", **said}
    return {"conditions": [lacking]}


SINCE_START = {"lastTransitionTime": "2026-11-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("seconds", "said", "permanent"),
    [
        pytest.param(59, SINCE_START, False, id="it may be a disk that is attached"),
        pytest.param(60, SINCE_START, True, id="nothing else takes so long"),
        pytest.param(600, {}, False, id="a kubelet that does not say since when"),
    ],
)
async def test_a_secret_that_the_model_needs_and_that_is_not_there_is_said(
    cluster: FakeCluster, operator: Operator, seconds: int, said: dict[str, str], permanent: bool
) -> None:
    await failing(cluster, operator, no_volumes(**said), **GATED)
    await operator.pass_time(seconds)

    found = obstacle(cluster)

    assert found is not None
    assert (found.reason, found.permanent) == ("WaitingForSecret", permanent)
    assert "Secret gate" in found.message
    assert "model.tokenSecretRef" in found.message


async def test_a_secret_that_comes_is_waited_for_no_longer(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, no_volumes(**SINCE_START), **GATED)
    await operator.pass_time(60)
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"status": main(state=RUNNING)})

    await operator.reconcile()
    cluster.writes.clear()
    await operator.pass_time(60)

    assert obstacle(cluster) is None
    assert cluster.writes == []


async def test_a_pod_without_volumes_waits_for_no_secret_where_none_is_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, no_volumes(**SINCE_START))
    await operator.pass_time(60)

    assert obstacle(cluster) is None


async def test_it_is_forgotten_when_a_replica_serves(
    cluster: FakeCluster, operator: Operator
) -> None:
    await failing(cluster, operator, NOT_THERE)
    roll_out(cluster)

    await operator.reconcile()

    assert obstacle(cluster) is None


async def test_it_is_written_once(cluster: FakeCluster, operator: Operator) -> None:
    await failing(cluster, operator, NOT_THERE)
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []


async def test_whoever_takes_it_away_is_put_right(cluster: FakeCluster, operator: Operator) -> None:
    await failing(cluster, operator, NOT_THERE)
    cluster.edit(
        LEASES,
        "default",
        "chat-balancer",
        lambda lease: lease["metadata"]["annotations"].pop(START_BLOCKER_ANNOTATION),
    )

    await operator.reconcile()

    assert obstacle(cluster) is not None


async def test_a_wake_that_failed_is_tried_anew_by_who_asks_later(
    cluster: FakeCluster, operator: Operator
) -> None:
    to_zero = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 30}
    stored(cluster, autoscaling=to_zero)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"status": NOT_THERE})
    await operator.reconcile()
    told = obstacle(cluster)

    # Refused, and counted all the same: as long as somebody asks, it is tried.
    operator.balancers.says["10.0.0.1"] = numbers(total=0) | {"peakDemand": 1}
    await operator.pass_time(60)
    tried = cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]
    operator.balancers.says["10.0.0.1"] = numbers(total=0)
    await operator.pass_time(32)
    given_up = cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]
    cluster.remove(PODS, "default", "chat-replicas-0")
    await operator.reconcile()
    forgotten = obstacle(cluster)
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)

    assert told is not None
    assert forgotten is None
    assert (tried, given_up) == (1, 0)
    assert server_status(cluster)["scaling"]["message"].endswith("0 -> 1")


def test_only_troubles_last() -> None:
    assert {severity(reason) for reason in PERMANENT | PERMANENT_WHEN_LOOPING} == {Severity.PROBLEM}
