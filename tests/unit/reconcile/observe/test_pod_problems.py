"""Termination messages of a download: any image can write them, so that none is trusted."""

import json

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, apply_server, condition, roll_out, set_pod_status
from pod_statuses import download, download_error, llama_server, terminated
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.pod_problems import MAX_TEXT

LONG = "x" * 10_000

UNTRUSTED = [
    pytest.param(download_error("AdminHacked", "call this number"), id="unknown reason"),
    pytest.param(download_error("InvalidSpec", "not of a download"), id="reason of another part"),
    pytest.param(download_error(LONG, "too long"), id="enormous reason"),
    pytest.param(download_error("ModelNotFound", "\ud800"), id="lone surrogate"),
    pytest.param(terminated(json.dumps({"message": "no reason"})), id="no reason"),
    pytest.param(terminated(json.dumps({"reason": "ModelNotFound"})), id="no message"),
    pytest.param(terminated(json.dumps({"reason": ["ModelNotFound"]})), id="list as reason"),
    pytest.param(terminated(json.dumps({"reason": None})), id="null as reason"),
    pytest.param(terminated(json.dumps(["ModelNotFound"])), id="JSON list"),
    pytest.param(terminated("null"), id="JSON null"),
    pytest.param(terminated('{"reason": "ModelNotFound"'), id="truncated JSON"),
    pytest.param(terminated("[" * 100_000), id="deeply nested JSON"),
    pytest.param(terminated(LONG), id="enormous text"),
    pytest.param(terminated(""), id="nothing"),
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


@pytest.mark.parametrize("state", UNTRUSTED)
async def test_anything_but_a_reason_of_a_download_is_a_failed_download_with_bounded_text(
    cluster: FakeCluster, operator: Operator, state: Manifest
) -> None:
    await deploy_with_pod_status(cluster, operator, download(state=state))

    found = condition(cluster, "ModelReady")
    assert (found["status"], found["reason"]) == ("False", "ModelDownloadFailed")
    assert found["message"].startswith("the model's download exited with code 1")
    assert len(found["message"]) < MAX_TEXT + 50
    assert condition(cluster, "Ready")["message"] == found["message"]
    assert condition(cluster, "Degraded")["reason"] == "ModelDownloadFailed"


async def test_the_message_of_a_download_is_bounded(
    cluster: FakeCluster, operator: Operator
) -> None:
    state = download_error("ModelNotFound", LONG)

    await deploy_with_pod_status(cluster, operator, download(state=state))

    found = condition(cluster, "ModelReady")
    assert (found["reason"], found["message"]) == ("ModelNotFound", "x" * (MAX_TEXT - 1) + "…")


async def test_the_message_of_a_crash_is_the_line_that_states_its_cause(
    cluster: FakeCluster, operator: Operator
) -> None:
    log = (
        "0.00.01.1 E llama_init_from_model: quantized V cache requires flash_attn to be enabled\n"
        "0.00.01.2 E srv  llama_server: exiting due to model loading error\n"
    )

    await deploy_with_pod_status(cluster, operator, llama_server(state=terminated(log)))

    assert condition(cluster, "ReplicasReady")["message"] == (
        "0 of 1 replicas ready; llama-server exited with code 1: llama_init_from_model: quantized "
        "V cache requires flash_attn to be enabled"
    )


async def test_the_line_of_llama_server_is_bounded(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_with_pod_status(cluster, operator, llama_server(state=terminated(LONG)))

    found = condition(cluster, "ReplicasReady")
    assert found["reason"] == "CrashLoopBackOff"
    assert len(found["message"]) < MAX_TEXT + 100


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            terminated("0.00.1.2.3 I a\nb\nc\nd"),
            "llama-server exited with code 1: b / c / d",
        ),
        (
            terminated("", 132),
            "llama-server was terminated by signal SIGILL; the image is built for CPUs with",
        ),
        (
            terminated(
                "/app/llama-server: error while loading shared libraries: libgomp.so.1: cannot "
                "open shared object file: No such file or directory",
                127,
            ),
            "; the image lacks a library that its program is linked with; use another build",
        ),
        (
            terminated("llama_model_load: error loading model: unknown model architecture: 'x'"),
            "unknown model architecture: 'x'; this build of llama.cpp does not know",
        ),
    ],
)
async def test_a_crash_is_explained_if_it_is_known_and_quoted_if_not(
    cluster: FakeCluster, operator: Operator, state: Manifest, expected: str
) -> None:
    await deploy_with_pod_status(cluster, operator, llama_server(state=state))

    assert expected in condition(cluster, "ReplicasReady")["message"]


async def test_ends_of_a_download_are_not_taken_for_those_of_llama_server(
    cluster: FakeCluster, operator: Operator
) -> None:
    state = terminated("sh: 1: slotkeeper: not found", 127)
    await deploy_with_pod_status(cluster, operator, download(state=state))

    assert "llama-server" not in condition(cluster, "ModelReady")["message"]
