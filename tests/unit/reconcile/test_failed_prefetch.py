"""Prefetch Jobs that fail, or whose pods do not start: what is reported, and what follows."""

from datetime import timedelta

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    START,
    Operator,
    condition,
    event_messages,
    pod_of,
    published_blocker,
    replica_count,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import (
    IMAGE_NOT_FOUND,
    RUNNING,
    download,
    download_error,
    terminated,
    unschedulable,
    volumes_not_mounted,
)
from prefetch_jobs import (
    MODEL,
    NO_MEMORY,
    NOT_FOUND,
    UNREACHABLE,
    URL,
    deploy_at_zero,
    fail,
    failed,
    job,
    jobs,
    phases,
    put_pod,
    put_status,
    queue_request,
    succeed,
)
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import PODS


async def test_a_failed_prefetch_is_reported_without_a_request(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await fail(cluster, operator, NOT_FOUND)

    message = f"GET {URL} answered 404"
    for kind, status in (("ModelReady", "False"), ("Ready", "False"), ("Degraded", "True")):
        found = condition(cluster, kind)
        assert (found["status"], found["reason"]) == (status, "ModelNotFound")
        assert found["message"] == message
    assert server_status(cluster)["model"]["display"] == "Failed"
    blocker = published_blocker(cluster)
    assert blocker
    assert (blocker.reason, blocker.permanent) == ("ModelNotFound", True)
    assert event_messages(cluster, "ModelNotFound") == [message]
    assert phases(operator.registry)["Failed"] == 1


async def test_a_download_that_failed_for_good_is_tried_again_after_an_hour(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await fail(cluster, operator, NOT_FOUND)
    before = job(cluster)["metadata"]["uid"]
    await operator.run_for(3590)
    shortly_before = job(cluster)["metadata"]["uid"]
    await operator.run_for(12)
    during = condition(cluster, "ModelReady")

    assert shortly_before == before
    assert job(cluster)["metadata"]["uid"] != before
    # Alerts on the problem do not start anew.
    assert during["reason"] == "ModelNotFound"
    update_spec(cluster, model=MODEL | {"url": f"{URL}?v=2"})
    await operator.reconcile()
    assert condition(cluster, "ModelReady")["reason"] == "Pending"


async def test_the_reason_is_kept_when_the_node_with_the_pod_is_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await fail(cluster, operator, NOT_FOUND)
    [pod] = [name for name in cluster.by_name(PODS) if "prefetch" in name]
    cluster.remove(PODS, "default", pod)
    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "ModelNotFound"


async def test_a_failure_without_pods_has_the_jobs_own_message(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_status(cluster, failed("BackoffLimitExceeded"), failed=7)
    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert found["reason"] == "ModelDownloadFailed"
    assert found["message"].endswith("failed: Job has failed")


async def test_a_request_after_a_failure_is_a_new_try(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await fail(cluster, operator, NOT_FOUND)
    await queue_request(operator)
    roll_out(cluster, ready=False)
    set_pod_status(cluster, download(state=RUNNING))
    await operator.reconcile()
    trying = condition(cluster, "ModelReady")["reason"]
    blocked = published_blocker(cluster)
    failed_job = job(cluster)
    roll_out(cluster)
    await operator.reconcile()

    assert replica_count(cluster) == 1
    assert trying == "Downloading"
    assert blocked is None
    assert failed_job["status"]["conditions"][0]["type"] == "Failed"
    # The replica has downloaded it: the failure is over, and the next Job confirms it.
    assert jobs(cluster) == {}
    assert condition(cluster, "ModelReady")["reason"] == "Downloaded"


async def test_failures_that_may_pass_are_tried_again_later(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    since = rfc3339(operator.time.clock.wall())
    put_pod(cluster, UNREACHABLE)
    put_status(cluster, failed("BackoffLimitExceeded", since), failed=7)
    await operator.reconcile()
    before = job(cluster)["metadata"]["uid"]
    blocker = published_blocker(cluster)
    await operator.run_for(590)
    shortly_before = job(cluster)["metadata"]["uid"]
    await operator.run_for(12)

    assert condition(cluster, "ModelReady")["reason"] == "ModelUnreachable"
    assert blocker
    assert (blocker.reason, blocker.permanent) == ("ModelUnreachable", False)
    assert shortly_before == before
    assert job(cluster)["metadata"]["uid"] != before


async def test_the_last_failure_is_shown_during_the_next_try(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_pod(cluster, UNREACHABLE, 0)
    put_status(cluster, failed=1)
    await operator.reconcile()
    between = condition(cluster, "ModelReady")["reason"]
    ready = [{"type": "Ready", "status": "True"}]
    put_pod(cluster, RUNNING, 1, conditions=ready)
    put_status(cluster, active=1, failed=1)
    await operator.reconcile()
    during = condition(cluster, "ModelReady")["reason"]
    await succeed(cluster, operator)

    assert between == during == "ModelUnreachable"
    assert condition(cluster, "ModelReady")["reason"] == "Prefetched"
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_an_evicted_pod_is_no_problem(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    evicted = [{"type": "DisruptionTarget", "status": "True"}]
    put_pod(cluster, terminated(code=143), conditions=evicted)
    put_status(cluster, active=0)

    await operator.reconcile()

    assert condition(cluster, "Degraded")["status"] == "False"
    assert condition(cluster, "ModelReady")["reason"] == "Pending"


@pytest.mark.parametrize(
    ("status", "reason", "ready", "message"),
    [
        pytest.param(unschedulable(NO_MEMORY), "Pending", True, NO_MEMORY, id="no node"),
        pytest.param(
            {"containerStatuses": [{"name": "download", "image": "a", "state": IMAGE_NOT_FOUND}]},
            "ImagePullBackOff",
            False,
            "cannot pull image a",
            id="no image",
        ),
        pytest.param(
            volumes_not_mounted(lastTransitionTime=rfc3339(START)),
            "WaitingForSecret",
            True,
            "waiting for Secret huggingface",
            id="no Secret yet",
        ),
        pytest.param(
            volumes_not_mounted(lastTransitionTime=rfc3339(START - timedelta(minutes=20))),
            "SecretNotFound",
            False,
            "Secret huggingface or one of its entries token, hosts does not exist",
            id="no Secret",
        ),
    ],
)
async def test_what_keeps_the_pod_from_starting_is_reported(
    cluster: FakeCluster,
    operator: Operator,
    status: Manifest,
    reason: str,
    ready: bool,
    message: str,
) -> None:
    await deploy_at_zero(cluster, operator, tokenSecretRef={"name": "huggingface"})
    put_pod(cluster, {})
    pod = pod_of(job(cluster), ready=False)
    cluster.put(pod | {"status": status})

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert (found["reason"], message in found["message"]) == (reason, True)
    assert (condition(cluster, "Ready")["status"] == "True") is ready
    # A replica may find a node where the Job's pod does not.
    assert bool(published_blocker(cluster)) is (reason == "SecretNotFound")


async def test_a_secret_that_stays_missing_is_a_problem_without_any_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator, tokenSecretRef={"name": "huggingface"})
    since = rfc3339(operator.time.clock.wall())
    pod = pod_of(job(cluster), ready=False)
    cluster.put(pod | {"status": volumes_not_mounted(lastTransitionTime=since)})

    await operator.run_for(620)

    assert condition(cluster, "ModelReady")["reason"] == "SecretNotFound"


async def test_a_job_whose_pod_is_rejected_keeps_the_server_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_status(cluster, startTime=rfc3339(START), ready=0)

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert found["reason"] == "Pending"
    assert "a quota or an admission policy may reject it" in found["message"]
    assert condition(cluster, "Ready")["status"] == "True"


async def deploy_on_node(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator, cache={"node": True})


@pytest.mark.parametrize("reason", ["InsufficientStorage", "StorageError"])
@pytest.mark.parametrize("node", [True, False])
async def test_a_disk_of_one_node_without_room_blocks_no_replica(
    cluster: FakeCluster, operator: Operator, reason: str, node: bool
) -> None:
    await (deploy_on_node if node else deploy_at_zero)(cluster, operator)
    await fail(cluster, operator, download_error(reason, "no room"))

    assert condition(cluster, "ModelReady")["reason"] == reason
    assert bool(published_blocker(cluster)) is not node


async def test_a_wrong_url_blocks_replicas_on_all_nodes(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_on_node(cluster, operator)
    await fail(cluster, operator, NOT_FOUND)

    assert published_blocker(cluster)


async def test_a_node_without_the_folder_of_its_cache_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_on_node(cluster, operator)
    pod = pod_of(job(cluster), 0, ready=False)
    unmounted = volumes_not_mounted(lastTransitionTime=rfc3339(START))
    cluster.put(pod | {"status": unmounted})
    operator.time.elapsed += 60
    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "NodeCacheUnavailable"
    assert published_blocker(cluster) is None
