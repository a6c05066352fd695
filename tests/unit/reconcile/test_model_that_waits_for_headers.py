"""The model in the status while `auto` keeps its replicas from starting."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from inspection_jobs import RECORD, end, inspection
from operator_harness import (
    START,
    Operator,
    apply_server,
    condition,
    event_messages,
    roll_out,
    server_status,
    update_spec,
)
from pod_statuses import RUNNING, download_error
from prefetch_jobs import NOT_FOUND, failed, put_pod, put_status
from slotkeeper.api.conditions import rfc3339

AUTO: dict[str, Any] = {"slots": 8, "contextPerSlot": "auto", "gpu": {"memory": "15Gi"}}
MISSING = {"url": "https://models.example.com/missing.gguf"}
ANSWERED = "GET https://models.example.com/model.gguf answered 404"
STILL_SERVE = "; replicas of an older spec still serve"


async def serve(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server with a choice for `auto`, whose replica is ready."""
    apply_server(cluster, **AUTO)
    await operator.reconcile()
    end(cluster, {"record": RECORD})
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()


def model_ready(cluster: FakeCluster) -> tuple[str, str, str]:
    found = condition(cluster, "ModelReady")
    return found["status"], found["reason"], found["message"]


def model(cluster: FakeCluster) -> tuple[str, str]:
    found = server_status(cluster)["model"]
    return found["file"], found["display"]


async def fail_for_good(cluster: FakeCluster, operator: Operator) -> None:
    put_pod(cluster, NOT_FOUND)
    put_status(cluster, failed("PodFailurePolicy", rfc3339(START)), failed=1)
    await operator.reconcile()


async def test_another_model_is_not_the_one_that_older_replicas_have(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serve(cluster, operator)
    before = model_ready(cluster)

    update_spec(cluster, model=MISSING)
    await operator.reconcile()
    reading = model_ready(cluster)
    await fail_for_good(cluster, operator)

    assert before[:2] == ("True", "Downloaded")
    waiting = "waiting for the headers of the model's files"
    assert reading == ("False", "ReadingHeader", waiting + STILL_SERVE)
    status, reason, message = model_ready(cluster)
    assert (status, reason) == ("False", "ModelNotFound")
    assert message.startswith(ANSWERED)
    assert message.endswith(STILL_SERVE)
    assert model(cluster) == ("missing.gguf", "Failed")
    assert condition(cluster, "Ready")["reason"] == "ModelNotFound"


async def test_another_number_of_slots_is_of_the_same_model(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serve(cluster, operator)

    update_spec(cluster, slots=256)
    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "DoesNotFit"
    assert model_ready(cluster)[:2] == ("True", "Downloaded")


@pytest.mark.parametrize("ended", [False, True])
async def test_a_host_that_is_unreachable_is_a_failed_download(
    cluster: FakeCluster, operator: Operator, *, ended: bool
) -> None:
    apply_server(cluster, **AUTO)
    await operator.reconcile()
    put_pod(cluster, download_error("ModelUnreachable", "connection refused"))
    if ended:
        put_status(cluster, failed("BackoffLimitExceeded", rfc3339(START)), failed=4)
    await operator.reconcile()

    assert model_ready(cluster)[:2] == ("False", "ModelUnreachable")
    assert "connection refused" in model_ready(cluster)[2]
    assert "still serve" not in model_ready(cluster)[2]
    assert model(cluster) == ("model.gguf", "Failed")


async def test_the_last_failure_stays_until_the_next_try_ends(
    cluster: FakeCluster, operator: Operator
) -> None:
    await serve(cluster, operator)
    update_spec(cluster, model=MISSING)
    await operator.reconcile()
    await fail_for_good(cluster, operator)
    first, explained = inspection(cluster)["metadata"]["uid"], model_ready(cluster)
    await operator.run_for(3601)
    put_pod(cluster, RUNNING)
    await operator.reconcile()

    assert inspection(cluster)["metadata"]["uid"] != first
    assert model_ready(cluster) == explained
    assert len(event_messages(cluster, "ModelNotFound")) == 1
    end(cluster, {"record": RECORD})
    await operator.reconcile()
    assert condition(cluster, "FitsMemory")["status"] == "True"
    assert model(cluster) == ("missing.gguf", "missing.gguf")


async def test_a_job_that_cannot_run_is_no_problem_of_the_model(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, **AUTO)
    await operator.reconcile()
    put_status(cluster, failed("DeadlineExceeded", rfc3339(START)))
    await operator.reconcile()

    assert model_ready(cluster)[:2] == ("False", "Pending")
    assert condition(cluster, "Ready")["reason"] == "AutoNotChosen"
