"""The progress of a download in status, conditions, events and metrics."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    KEY,
    Operator,
    apply_server,
    condition,
    event_messages,
    event_reasons,
    roll_out,
    server_status,
    set_pod_status,
)
from pod_statuses import (
    CRASH_LOOP,
    IMAGE_NOT_FOUND,
    RUNNING,
    download,
    download_error,
    llama_server,
    terminated,
)

URL = "https://models.example.com/model.gguf"
STATUS_WRITE = Write("patch_status", "LlamaServer", "chat")
READY = {"type": "Ready", "status": "True"}
PROGRESS = {
    "bytes": 4_000_000_000,
    "downloadedBytes": 1_720_000_000,
    "bytesPerSecond": 28_500_000,
    "secondsLeft": 80,
}


def progress(**fields: Any) -> dict[str, Any]:
    return {"phase": "Downloading", "file": "model.gguf", **PROGRESS, **fields}


def completed(received: int | None, seconds: int = 80) -> Any:
    """The state of a download that ended, and of a llama-server that runs."""
    report = {"sizeBytes": 4_000_000_000, "sha256": "ab" * 32}
    if received is not None:
        report["receivedBytes"] = received
    times = {
        "startedAt": "2026-11-01T12:00:00Z",
        "finishedAt": f"2026-11-01T12:{seconds // 60:02}:{seconds % 60:02}Z",
    }
    status = llama_server(state=RUNNING)
    ended = terminated(json.dumps(report), 0, **times)
    status["initContainerStatuses"][0]["state"] = ended
    return status


def host_of(index: int) -> str:
    return f"10.0.1.{index}"


def start_download(cluster: FakeCluster, index: int = 0) -> None:
    """Kubernetes has started the download container of a replica."""
    status = {"podIP": host_of(index), **download(state=RUNNING)}
    set_pod_status(cluster, status, index)


async def deploy_downloading(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy a server whose replicas download their model; none has reported its progress."""
    apply_server(cluster, model={"url": URL}, **spec)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    for index in range(spec.get("replicas", 1)):
        start_download(cluster, index)
    await operator.reconcile()
    cluster.writes.clear()


def model(cluster: FakeCluster) -> Any:
    return server_status(cluster)["model"]


async def test_the_progress_is_in_the_status_the_column_and_the_condition(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = progress()

    await operator.run_for(2)

    assert model(cluster) == {
        "source": URL,
        "file": "model.gguf",
        "display": "43% 1m20s",
        **PROGRESS,
    }
    found = condition(cluster, "ModelReady")
    assert (found["status"], found["reason"]) == ("False", "Downloading")
    assert found["message"] == "downloading the model: 43% of 4.0 GB, 28.5 MB/s, 1m20s left"


async def test_gateways_have_no_pass_for_a_progress(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)
    before = condition(cluster, "Ready")
    operator.catalog.refresh(KEY)
    operator.downloads.reports[host_of(0)] = progress()

    await operator.run_for(2)

    assert condition(cluster, "Ready") == before
    assert operator.catalog.refresh(KEY) == []


async def test_loading_follows_the_download_and_then_the_models_name(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = progress()
    await operator.run_for(2)

    set_pod_status(cluster, completed(4_000_000_000))
    await operator.reconcile()
    loading = model(cluster)
    set_pod_status(cluster, {**completed(4_000_000_000), "conditions": [READY]})
    await operator.reconcile()

    assert loading["display"] == "Loading"
    assert not PROGRESS.keys() & loading.keys()
    assert model(cluster)["display"] == "model.gguf"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"state": {"waiting": {"reason": "PodInitializing"}}}, "Loading"),
        ({"state": RUNNING}, "Loading"),
        ({"state": CRASH_LOOP, "lastState": terminated()}, "model.gguf"),
        ({"state": IMAGE_NOT_FOUND}, "model.gguf"),
    ],
)
async def test_a_model_is_loading_unless_a_problem_keeps_it_from_being_ready(
    cluster: FakeCluster, operator: Operator, status: Any, shown: str
) -> None:
    await deploy_downloading(cluster, operator)
    set_pod_status(cluster, llama_server(**status))
    await operator.reconcile()

    assert model(cluster)["display"] == shown


@pytest.mark.parametrize(
    ("report", "shown"),
    [
        ({"phase": "Checking", "downloadedBytes": 0}, "Checking"),
        ({"phase": "Waiting", "downloadedBytes": 0}, "Waiting"),
        ({"phase": "Verifying", "downloadedBytes": 0}, "Verifying"),
        (progress(bytesPerSecond=0, secondsLeft=None), "43% stalled"),
        (progress(bytes=None, secondsLeft=None), "1.7 GB"),
    ],
)
async def test_what_a_download_does_is_told_apart(
    cluster: FakeCluster, operator: Operator, report: Any, shown: str
) -> None:
    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = report

    await operator.run_for(2)

    assert model(cluster)["display"] == shown
    assert ("downloadedBytes" in model(cluster)) == (report["downloadedBytes"] > 0)


@pytest.mark.parametrize(
    ("reason", "report", "shown"),
    [
        ("ModelUnreachable", None, "Failed"),
        ("ModelUnreachable", {"phase": "Checking", "downloadedBytes": 0}, "Failed"),
        ("ModelUnreachable", {"phase": "Verifying", "downloadedBytes": 1000}, "Failed"),
        ("ModelUnreachable", progress(bytesPerSecond=0, secondsLeft=None), "Failed"),
        ("ModelUnreachable", progress(), "43% 1m20s"),
        ("ModelNotFound", progress(), "43% 1m20s"),
        ("ModelChecksumMismatch", progress(), "Failed"),
    ],
)
async def test_a_failure_is_shown_until_bytes_arrive(
    cluster: FakeCluster, operator: Operator, reason: str, report: Any, shown: str
) -> None:
    await deploy_downloading(cluster, operator)
    error = download_error(reason, "no model")
    set_pod_status(cluster, download(state=error))
    await operator.reconcile()
    ended = model(cluster)["display"]
    set_pod_status(cluster, download(state=CRASH_LOOP, lastState=error))
    await operator.reconcile()
    backing_off = model(cluster)["display"]

    retried = download(state=RUNNING, lastState=error)
    set_pod_status(cluster, {"podIP": host_of(0), **retried})
    await operator.reconcile()
    if report:
        operator.downloads.reports[host_of(0)] = report
    await operator.run_for(2)

    assert ended == backing_off == "Failed"
    assert model(cluster)["display"] == shown
    assert condition(cluster, "ModelReady")["reason"] == reason


async def test_a_download_that_was_killed_has_failed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)

    set_pod_status(cluster, download(state=terminated(reason="OOMKilled")))
    await operator.reconcile()

    assert model(cluster)["display"] == "Failed"


async def test_a_pod_that_does_not_respond_or_lies_changes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator, replicas=2)
    operator.downloads.reports[host_of(1)] = progress(downloadedBytes=2**62)

    await operator.run_for(10)

    assert operator.downloads.polls == 10
    assert model(cluster)["display"] == "model.gguf"
    assert condition(cluster, "ModelReady")["message"] == "downloading the model"
    assert STATUS_WRITE not in cluster.writes


async def test_of_several_replicas_the_one_that_will_be_ready_first_is_shown(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator, replicas=3)
    operator.downloads.reports |= {
        host_of(0): progress(secondsLeft=500, downloadedBytes=3_000_000_000),
        host_of(1): progress(secondsLeft=100, downloadedBytes=1_000_000_000),
        host_of(2): {"phase": "Waiting"},
    }

    await operator.run_for(2)

    assert model(cluster)["display"] == "25% 1m40s"


async def test_a_status_is_written_every_two_seconds_at_most_and_only_for_a_change(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)
    for second in range(20):
        operator.downloads.reports[host_of(0)] = progress(downloadedBytes=1_000_000 * second)
        await operator.run_for(1)
        await operator.reconcile()
    written = cluster.writes.count(STATUS_WRITE)
    await operator.run_for(20)

    assert written == 10
    assert cluster.writes.count(STATUS_WRITE) == 10


async def test_sixteen_replicas_are_one_event_at_the_start_and_one_at_the_end(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator, replicas=16)
    for second in range(10):
        for index in range(16):
            reported = progress(downloadedBytes=index + second)
            operator.downloads.reports[host_of(index)] = reported
        await operator.run_for(1)
    for index in range(16):
        set_pod_status(cluster, completed(4_000_000_000, seconds=80 + index), index)
        await operator.reconcile()

    assert event_messages(cluster, "DownloadStarted") == [
        "downloading model.gguf from models.example.com"
    ]
    assert event_messages(cluster, "DownloadCompleted") == [
        "model.gguf: 4.0 GB in 1m20s (50.0 MB/s)"
    ]


async def test_a_restarted_operator_repeats_no_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = progress()
    await operator.run_for(2)

    again = Operator(cluster, operator.time, downloads=operator.downloads)
    await again.reconcile()
    await again.run_for(4)
    set_pod_status(cluster, completed(4_000_000_000))
    await again.reconcile()
    last = Operator(cluster, operator.time, downloads=operator.downloads)
    await last.reconcile()

    reasons = event_reasons(cluster)
    assert reasons.count("DownloadStarted") == reasons.count("DownloadCompleted") == 1


@pytest.mark.parametrize("received", [None, 0, -1, True, "4 GB", 2**60])
async def test_a_file_that_was_there_or_an_absurd_report_is_no_event(
    cluster: FakeCluster, operator: Operator, received: Any
) -> None:
    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = {"phase": "Verifying"}
    await operator.run_for(2)
    set_pod_status(cluster, completed(received))
    await operator.reconcile()

    assert condition(cluster, "ModelReady")["status"] == "True"
    assert not {"DownloadStarted", "DownloadCompleted"} & {*event_reasons(cluster)}


async def test_another_replica_of_a_server_that_serves_leaves_its_name_in_the_column(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_downloading(cluster, operator, replicas=2)
    set_pod_status(cluster, {**completed(4_000_000_000), "conditions": [READY]}, 0)
    operator.downloads.reports[host_of(1)] = progress()
    await operator.reconcile()

    await operator.run_for(2)

    assert model(cluster)["display"] == "model.gguf"
    assert model(cluster)["secondsLeft"] == 80


async def test_the_progress_is_a_metric_as_long_as_it_is_known(
    cluster: FakeCluster, operator: Operator
) -> None:
    def value(name: str) -> float | None:
        labels = {"namespace": "default", "name": "chat"}
        return operator.registry.get_sample_value(
            f"slotkeeper_operator_model_download_{name}", labels
        )

    await deploy_downloading(cluster, operator)
    operator.downloads.reports[host_of(0)] = progress()
    await operator.run_for(60)
    running = [value(name) for name in ("bytes", "received_bytes", "stalled_seconds")]
    set_pod_status(cluster, completed(4_000_000_000))
    await operator.reconcile()

    assert running == [4_000_000_000, 1_720_000_000, 58]
    assert value("stalled_seconds") is None
