"""The Job that downloads a model while no replica is desired: its life, and what is reported."""

import json

import pytest

from fake_cluster import FakeCluster
from llamaservers import DOWNLOADS
from operator_harness import (
    BALANCER_HOST,
    Operator,
    condition,
    demand_report,
    deploy,
    event_messages,
    pod_of,
    replica_count,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import (
    RUNNING,
    terminated,
    unschedulable,
)
from prefetch_jobs import (
    MODEL,
    NO_GPU,
    NO_MEMORY,
    NOT_FOUND,
    SUCCEEDED,
    URL,
    deploy_at_zero,
    job,
    jobs,
    phases,
    put_pod,
    put_status,
    queue_request,
    succeed,
)
from slotkeeper.api.group import GROUP
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS, PODS
from slotkeeper.reconcile.workqueue import RetryError


async def test_the_model_is_downloaded_before_a_request(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    waiting = condition(cluster, "ModelReady")
    put_pod(cluster, RUNNING)
    put_status(cluster, active=1)
    await operator.reconcile()
    downloading = condition(cluster, "ModelReady")
    ready_meanwhile = condition(cluster, "Ready")
    running = phases(operator.registry)

    await succeed(cluster, operator)

    found = condition(cluster, "ModelReady")
    assert replica_count(cluster) == 0
    assert (waiting["status"], waiting["reason"]) == ("False", "Pending")
    assert (downloading["status"], downloading["reason"]) == ("False", "Downloading")
    # The next request starts a replica in any case.
    assert (ready_meanwhile["status"], ready_meanwhile["reason"]) == ("True", "ScaledToZero")
    assert (found["status"], found["reason"]) == ("True", "Prefetched")
    assert "the model was trained for 2048 tokens" in found["message"]
    assert server_status(cluster)["model"]["architecture"] == "llama"
    assert condition(cluster, "Ready")["reason"] == "ScaledToZero"
    assert event_messages(cluster, "PrefetchStarted") == [
        f"Job {job(cluster)['metadata']['name']} downloads the model"
    ]
    assert len(event_messages(cluster, "Prefetched")) == 1
    assert running == {"Running": 1, "Succeeded": 0, "Failed": 0}
    assert phases(operator.registry) == {"Running": 0, "Succeeded": 1, "Failed": 0}


async def test_the_progress_of_a_prefetch_is_reported_like_that_of_a_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_pod(cluster, RUNNING, podIP="10.0.1.0")
    put_status(cluster, active=1)
    await operator.reconcile()
    operator.downloads.reports["10.0.1.0"] = {
        "phase": "Downloading",
        "bytes": 4_000_000_000,
        "downloadedBytes": 1_720_000_000,
        "bytesPerSecond": 28_500_000,
        "secondsLeft": 80,
    }
    await operator.run_for(2)
    shown = server_status(cluster)["model"]["display"]
    message = condition(cluster, "ModelReady")["message"]
    times = {"startedAt": "2026-11-01T12:00:00Z", "finishedAt": "2026-11-01T12:01:20Z"}
    report = json.dumps({"sizeBytes": 4_000_000_000, "receivedBytes": 4_000_000_000})
    put_pod(cluster, terminated(report, 0, **times))
    put_status(cluster, SUCCEEDED, succeeded=1)
    await operator.reconcile()

    assert shown == "43% 1m20s"
    assert message == "prefetching the model: 43% of 4.0 GB, 28.5 MB/s, 1m20s left"
    assert server_status(cluster)["model"]["display"] == "model.gguf"
    assert len(event_messages(cluster, "DownloadStarted")) == 1
    assert event_messages(cluster, "DownloadCompleted") == [
        "model.gguf: 4.0 GB in 1m20s (50.0 MB/s)"
    ]


async def test_a_finished_job_stays_and_is_not_written_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await succeed(cluster, operator)
    before = job(cluster)
    cluster.writes.clear()

    await queue_request(operator)
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    await operator.run_for(2)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(40)
    roll_out(cluster)
    await Operator(cluster, operator.time, operator.balancers).reconcile()

    assert replica_count(cluster) == 0
    assert job(cluster) == before
    assert not [write for write in cluster.writes if write.kind == "Job"]
    assert condition(cluster, "ModelReady")["reason"] == "Prefetched"
    assert len(event_messages(cluster, "Prefetched")) == 1


async def test_the_metadata_is_kept_when_the_jobs_pod_is_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await succeed(cluster, operator)
    [pod] = [name for name in cluster.by_name(PODS) if "prefetch" in name]
    cluster.remove(PODS, "default", pod)

    await operator.reconcile()

    assert server_status(cluster)["model"]["architecture"] == "llama"
    assert condition(cluster, "ModelReady")["reason"] == "Prefetched"


async def test_another_url_replaces_the_job(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    await succeed(cluster, operator)
    before = set(jobs(cluster))

    update_spec(cluster, model=MODEL | {"url": f"{URL}?v=2"})
    await operator.reconcile()

    assert len(jobs(cluster)) == 1
    assert set(jobs(cluster)) != before
    assert condition(cluster, "ModelReady")["reason"] == "Pending"


async def test_a_change_of_the_pod_replaces_a_running_job_and_no_finished_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    first = job(cluster)
    update_spec(cluster, model=MODEL | {"download": {"maxFileSize": "1Gi"}})
    await operator.reconcile()
    second = job(cluster)
    await succeed(cluster, operator)
    update_spec(cluster, model=MODEL | {"download": {"maxFileSize": "2Gi"}})
    await operator.reconcile()
    third = job(cluster)

    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert "1073741824" in second["spec"]["template"]["spec"]["containers"][0]["command"]
    assert third["metadata"]["uid"] == second["metadata"]["uid"]


async def test_switched_off_the_job_is_deleted(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)

    update_spec(cluster, model=MODEL | {"prefetch": False})
    await operator.reconcile()

    assert jobs(cluster) == {}
    assert condition(cluster, "ModelReady")["reason"] == "ScaledToZero"


async def test_a_deleted_job_runs_again(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    await succeed(cluster, operator)
    before = job(cluster)["metadata"]
    cluster.remove(JOBS, "default", before["name"])

    await operator.reconcile()

    after = job(cluster)
    assert after["metadata"]["name"] == before["name"]
    assert "status" not in after
    assert event_messages(cluster, "DriftCorrected") == []


async def test_a_suspended_server_downloads_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    update_spec(cluster, suspend=True)
    await operator.reconcile()
    suspended = jobs(cluster)
    update_spec(cluster, suspend=False)
    await operator.reconcile()
    resumed = jobs(cluster)
    await succeed(cluster, operator)
    update_spec(cluster, suspend=True)
    await operator.reconcile()

    assert suspended == {}
    assert len(resumed) == 1
    assert len(jobs(cluster)) == 1


# A replica starts while the Job runs.


async def test_the_job_goes_on_until_a_replica_has_a_node(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_pod(cluster, RUNNING)
    await queue_request(operator)
    roll_out(cluster, ready=False)
    set_pod_status(cluster, unschedulable(NO_GPU))
    await operator.reconcile()
    without_node = len(jobs(cluster))

    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"spec": {**pod["spec"], "nodeName": "a"}})
    await operator.reconcile()

    assert without_node == 1
    assert jobs(cluster) == {}


async def test_the_job_ends_where_it_occupies_what_a_replica_lacks(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    put_pod(cluster, RUNNING)
    await queue_request(operator)
    roll_out(cluster, ready=False)
    set_pod_status(cluster, unschedulable(NO_MEMORY))

    await operator.reconcile()

    assert replica_count(cluster) == 1
    assert jobs(cluster) == {}


async def test_no_job_starts_while_a_replica_is_desired(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, model=MODEL | {"prefetch": True})

    assert jobs(cluster) == {}
    assert condition(cluster, "ModelReady")["reason"] == "Downloaded"


# Objects of others.


async def test_a_pod_that_imitates_the_jobs_is_not_believed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    pod = pod_of(job(cluster), ready=False)
    pod["metadata"]["ownerReferences"] = []
    cluster.put(pod | {"status": {"containerStatuses": [{"name": "download", "state": NOT_FOUND}]}})

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "Pending"


async def test_a_changed_job_is_corrected(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_at_zero(cluster, operator)
    name = job(cluster)["metadata"]["name"]
    cluster.edit(JOBS, "default", name, lambda item: item["spec"].update(parallelism=0))

    await operator.reconcile()

    assert job(cluster)["spec"]["parallelism"] == 1
    assert event_messages(cluster, "DriftCorrected")


async def test_a_finished_job_without_an_owner_is_adopted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    await succeed(cluster, operator)
    name = job(cluster)["metadata"]["name"]
    cluster.edit(JOBS, "default", name, lambda item: item["metadata"].update(ownerReferences=[]))

    await operator.reconcile()

    assert job(cluster)["metadata"]["ownerReferences"]
    assert condition(cluster, "ModelReady")["reason"] == "Prefetched"


async def test_a_job_of_that_name_of_others_is_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_at_zero(cluster, operator)
    found = job(cluster)
    foreign = {**found["metadata"], "ownerReferences": [], "labels": {f"{GROUP}/server": "chat"}}
    cluster.remove(JOBS, "default", foreign["name"])
    foreign["uid"] = "another"
    cluster.put({**found, "metadata": foreign, "status": {"conditions": [SUCCEEDED]}})

    with pytest.raises(RetryError, match="is not owned by this server"):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "NameConflict"
    assert job(cluster)["metadata"]["ownerReferences"] == []


async def test_a_model_is_downloaded_to_a_node_only_with_the_charts_consent(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.reconciler.downloads = NO_SETTINGS
    await deploy_at_zero(cluster, operator, cache={"node": True})
    without = jobs(cluster)
    reason = condition(cluster, "Ready")["reason"]
    operator.reconciler.downloads = DOWNLOADS
    await operator.reconcile()
    await succeed(cluster, operator)

    assert (without, reason) == ({}, "NodeCacheNotAllowed")
    [volume] = job(cluster)["spec"]["template"]["spec"]["volumes"]
    assert volume["hostPath"]["path"] == "/var/lib/slotkeeper/models/default"
    assert condition(cluster, "ModelReady")["reason"] == "Prefetched"
    assert replica_count(cluster) == 0
