"""The Job that reads headers is rejected, cannot run, or is another one: what users see of it."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from inspection_jobs import RECORD, complete, end, inspection, inspections
from operator_harness import (
    START,
    Operator,
    apply_server,
    condition,
    deploy,
    event_messages,
    published_blocker,
    replica_count,
    server_status,
    update_spec,
)
from pod_statuses import IMAGE_NOT_FOUND, RUNNING, download_error, unschedulable
from prefetch_jobs import failed, put_pod, put_status
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import ApiError, Manifest
from slotkeeper.kube.kinds import JOBS

GPU = {"memory": "15Gi"}
AUTO: dict[str, Any] = {"slots": 8, "contextPerSlot": "auto", "gpu": GPU}
QUOTA = ApiError(403, "Forbidden", "exceeded quota: small, requested: count/jobs.batch=1")


async def test_replicas_start_though_the_job_is_rejected(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(QUOTA, "apply", JOBS)
    await deploy(cluster, operator, gpu=GPU)

    assert condition(cluster, "Ready")["status"] == "True"
    assert condition(cluster, "Degraded")["status"] == "False"
    fits = condition(cluster, "FitsMemory")
    assert (fits["status"], fits["reason"]) == ("Unknown", "HeaderUnavailable")
    assert fits["message"].startswith(
        "the headers of the model's files could not be read: the API server rejected Job "
        "chat-inspection-"
    )
    assert fits["message"].endswith(f"{QUOTA.message}; it is tried again within ten minutes")


async def test_a_rejected_job_is_tried_again_after_ten_seconds(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(QUOTA, "apply", JOBS)
    await deploy(cluster, operator, gpu=GPU)
    cluster.recover()
    cluster.requests.clear()

    await operator.run_for(9)
    early = ("apply", "Job") in cluster.requests
    await operator.run_for(2)

    assert not early
    assert inspections(cluster)
    assert condition(cluster, "FitsMemory")["reason"] == "ReadingHeader"


async def test_a_job_that_stays_rejected_is_tried_less_often(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(QUOTA, "apply", JOBS)
    await deploy(cluster, operator, gpu=GPU)
    cluster.requests.clear()
    cluster.writes.clear()
    await operator.run_for(3600)
    tries = cluster.requests.count(("apply", "Job"))
    written = list(cluster.writes)
    cluster.recover()
    await operator.run_for(600)

    # After 10, 30, 70, 150, 310 and 630 seconds, and then each ten minutes.
    assert tries == 10
    assert written == []
    assert inspections(cluster)


async def test_another_spec_is_another_try(cluster: FakeCluster, operator: Operator) -> None:
    cluster.fail(QUOTA, "apply", JOBS)
    await deploy(cluster, operator, gpu=GPU)
    cluster.recover()

    update_spec(cluster, slots=2)
    await operator.reconcile()

    assert inspections(cluster)


async def test_auto_cannot_be_chosen_without_the_job(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(QUOTA, "apply", JOBS)
    apply_server(cluster, **AUTO)
    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert (found["status"], found["reason"]) == ("False", "AutoNotChosen")
    retried = "it is tried again within ten minutes; set a number instead"
    assert f"{QUOTA.message}; {retried}" in found["message"]
    blocker = published_blocker(cluster)
    assert blocker
    assert blocker.reason == "AutoNotChosen"


async def test_a_job_that_a_webhook_changes_is_left_as_it_is(
    cluster: FakeCluster, operator: Operator
) -> None:
    def use_mirror(item: Any) -> None:
        if item["kind"] == "Job":
            container = item["spec"]["template"]["spec"]["containers"][0]
            container["image"] = f"mirror.example.com/{container['image']}"

    def immutable(verb: str, manifest: Manifest) -> Exception | None:
        if verb == "apply" and manifest["kind"] == "Job" and inspections(cluster):
            return ApiError(422, "Invalid", "spec.template: field is immutable")
        return None

    cluster.webhook, cluster.inject_error = use_mirror, immutable
    await deploy(cluster, operator, gpu=GPU)
    passes = len(operator.passes)
    cluster.requests.clear()
    await operator.run_for(60)
    waiting = condition(cluster, "FitsMemory")
    end(cluster, {"record": RECORD})
    await operator.reconcile()

    assert len(operator.passes) - passes < 10
    assert cluster.requests.count(("apply", "Job")) <= 1
    assert waiting["reason"] == "ReadingHeader"
    assert condition(cluster, "FitsMemory")["reason"] == "Fits"
    # As of any child that is changed during its write.
    assert condition(cluster, "Degraded")["reason"] == "FieldConflict"
    assert condition(cluster, "Ready")["status"] == "True"


async def test_an_api_server_that_fails_is_asked_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.fail(ApiError(500, "InternalError", "etcd"), "apply", JOBS)
    apply_server(cluster, gpu=GPU)
    with pytest.raises(ApiError):
        await operator.reconcile()
    cluster.recover()
    await operator.run_for(10)

    assert inspections(cluster)


def without_pods(cluster: FakeCluster) -> None:
    put_status(cluster, startTime=rfc3339(START))


def without_image(cluster: FakeCluster) -> None:
    put_pod(cluster, IMAGE_NOT_FOUND)


def without_node(cluster: FakeCluster) -> None:
    put_pod(cluster, RUNNING, **unschedulable("0/3 nodes are available"))


def unreachable(cluster: FakeCluster) -> None:
    put_pod(cluster, download_error("ModelUnreachable", "connection refused"))


def suspended(cluster: FakeCluster) -> None:
    put_status(cluster, {"type": "Suspended", "status": "True"})


DELAYS = [
    (suspended, "SchedulingGated", "is suspended, as by Kueue before it is admitted"),
    (without_pods, "FailedCreate", "has no pod yet: a quota or an admission policy may reject it"),
    (without_image, "ImagePullBackOff", "cannot pull image slotkeeper/download:0.1.0: not found"),
    (without_node, "Unschedulable", "0/3 nodes are available"),
    (unreachable, "ModelUnreachable", "connection refused"),
]


@pytest.mark.parametrize(("happens", "reason", "message"), DELAYS)
async def test_what_a_job_waits_for_is_why_there_is_no_choice(
    cluster: FakeCluster, operator: Operator, happens: Any, reason: str, message: str
) -> None:
    apply_server(cluster, **AUTO)
    await operator.reconcile()

    happens(cluster)
    await operator.reconcile()

    found = condition(cluster, "ReplicasReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert found["message"].startswith("waiting for the headers of the model's files: ")
    assert message in found["message"]
    waits = reason == "SchedulingGated"
    assert condition(cluster, "Degraded")["reason"] == ("AsExpected" if waits else reason)
    end(cluster, {"record": RECORD})
    await operator.reconcile()
    assert condition(cluster, "FitsMemory")["status"] == "True"
    assert published_blocker(cluster) is None


@pytest.mark.parametrize(("happens", "reason", "message"), DELAYS)
async def test_what_a_job_waits_for_is_no_problem_without_auto(
    cluster: FakeCluster, operator: Operator, happens: Any, reason: str, message: str
) -> None:
    await deploy(cluster, operator, gpu=GPU)

    happens(cluster)
    await operator.reconcile()

    found = condition(cluster, "FitsMemory")
    assert (found["status"], found["reason"]) == ("Unknown", "ReadingHeader"), reason
    assert message in found["message"]
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_an_eviction_does_not_explain_a_failed_job(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    evicted = {"type": "DisruptionTarget", "status": "True"}
    put_pod(cluster, download_error("ModelUnreachable", "no route"), conditions=[evicted])
    put_status(cluster, failed("DeadlineExceeded"))
    await operator.reconcile()

    message = condition(cluster, "FitsMemory")["message"]
    assert "no route" not in message
    assert "failed: Job has failed; it is tried again within ten minutes, or at once" in message


async def test_a_report_may_arrive_after_the_success_of_its_job(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, **AUTO)
    await operator.reconcile()
    complete(cluster)
    await operator.reconcile()
    soon = condition(cluster, "ReplicasReady")["reason"]
    await operator.run_for(20)

    assert soon == "ReadingHeader"
    found = condition(cluster, "ReplicasReady")
    assert found["reason"] == "AutoNotChosen"
    assert "has left no report" in found["message"]
    assert event_messages(cluster, "AutoNotChosen") == [found["message"]]


async def test_a_job_of_others_is_left_alone_and_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    job = inspection(cluster)
    name = job["metadata"]["name"]
    foreign: Manifest = {
        **job,
        "metadata": {"name": name, "namespace": "default", "labels": {}, "annotations": {}},
    }
    cluster.remove(JOBS, "default", name)
    cluster.put(foreign)
    await operator.reconcile()
    passes = len(operator.passes)
    await operator.run_for(60)

    assert len(operator.passes) - passes < 10
    found = condition(cluster, "FitsMemory")
    assert found["reason"] == "HeaderUnavailable"
    assert f"Job {name} exists and is not owned by this server" in found["message"]
    assert replica_count(cluster) == 1
    assert condition(cluster, "Ready")["status"] == "True"


async def test_a_crd_without_the_field_causes_no_passes_in_a_loop(
    cluster: FakeCluster, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = cluster.patch_status

    async def prune(manifest: Manifest) -> Manifest:
        status = {name: found for name, found in manifest["status"].items() if name != "memory"}
        return await accept({**manifest, "status": status})

    monkeypatch.setattr(cluster, "patch_status", prune)
    await deploy(cluster, operator, gpu=GPU)
    end(cluster, {"record": RECORD})
    await operator.reconcile()
    passes = len(operator.passes)
    await operator.run_for(60)

    assert len(operator.passes) - passes < 10
    assert condition(cluster, "FitsMemory")["status"] == "True"
    assert "memory" not in server_status(cluster)


async def test_a_failed_job_that_a_user_deletes_is_no_drift(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, gpu=GPU)
    put_status(cluster, failed("PodFailurePolicy", rfc3339(START)))
    await operator.reconcile()

    first = inspection(cluster)["metadata"]
    cluster.remove(JOBS, "default", first["name"])
    await operator.reconcile()

    assert inspection(cluster)["metadata"]["uid"] != first["uid"]
    assert event_messages(cluster, "DriftCorrected") == []
