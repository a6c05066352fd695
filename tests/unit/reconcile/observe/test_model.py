"""The model in a server's status: from the spec, and from the report of the download."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    edit_spec,
    pod_of,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import download, download_error, volumes_not_mounted
from slotkeeper.api import reasons
from slotkeeper.api.problem_reasons import DOWNLOAD_REASONS, Reason
from slotkeeper.api.reason_doc import Severity
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, PODS

URL = "https://models.example.com/dir/a%20model.gguf"
SHA256 = "ab" * 32

REPORT = {
    "sizeBytes": 4_920_739_232,
    "sha256": SHA256,
    "architecture": "llama",
    "contextLength": 8192,
    "layers": 32,
    "quantization": "Q4_K_M",
    "name": "Llama 3 8B",
    "sizeLabel": "8B",
}
FROM_SPEC = {"source": URL, "file": "a model.gguf", "display": "a model.gguf"}


def with_report(pod: Manifest, message: str, created: str = "2026-11-01T12:00:00Z") -> Manifest:
    """The pod after its download has ended with this termination message."""
    pod["metadata"]["creationTimestamp"] = created
    pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"] = message
    return pod


async def deploy_reported(
    cluster: FakeCluster, operator: Operator, message: str = json.dumps(REPORT), **spec: Any
) -> None:
    """Deploy a server whose first replica's download has ended with this termination message."""
    apply_server(cluster, **{"model": {"url": f"{URL}?signature=CANARY#CANARY"}, **spec})
    await operator.reconcile()
    roll_out(cluster)
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"])
    cluster.put(with_report(pod, message + "\n"))
    await operator.reconcile()


def model(cluster: FakeCluster) -> Any:
    return server_status(cluster)["model"]


async def test_the_report_of_a_download_is_in_the_status_and_no_secret_of_the_url(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_reported(cluster, operator)

    assert model(cluster) == FROM_SPEC | REPORT
    assert "CANARY" not in json.dumps(server_status(cluster))


async def test_before_a_report_the_model_is_that_of_the_spec(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, model={"url": URL})

    await operator.reconcile()

    assert model(cluster) == FROM_SPEC


@pytest.mark.parametrize(
    ("url", "source", "file"),
    [
        ("http://h", "http://h/", ""),
        ("http://h?a=/b", "http://h/", ""),
        ("http://h/?a", "http://h/", ""),
        ("http://[/x/y", "http://[/x/y", "y"),
        ("http://h/a%2Fb", "http://h/a%2Fb", "a/b"),
        ("http://h/%1b[2J%0a%e2%80%ae", "http://h/%1b[2J%0a%e2%80%ae", "%1b[2J%0a%e2%80%ae"),
        ("hf://org/repo/dir/a.gguf@refs/pr/1", "hf://org/repo/dir/a.gguf@refs/pr/1", "a.gguf"),
        ("hf://org/repo:Q4_K_M", "hf://org/repo:Q4_K_M", ""),
        ("oci://ghcr.io/a:v1/m/b.gguf", "oci://ghcr.io/a:v1/m/b.gguf", "b.gguf"),
        ("pvc://models/dir/a.gguf", "pvc://models/dir/a.gguf", "a.gguf"),
    ],
)
async def test_any_url_has_a_source_and_a_file(
    cluster: FakeCluster, operator: Operator, url: str, source: str, file: str
) -> None:
    apply_server(cluster, model={"url": url})

    await operator.reconcile()

    assert model(cluster) == {"source": source, "file": file, "display": file}


@pytest.mark.parametrize(
    ("url", "before"),
    [
        ("hf://org/repo:Q4_K_M", ""),
        ("oci://registry.example.com:5000/team/a:v1", "a:v1"),
        (f"oci://ghcr.io/team/a@sha256:{SHA256}", "a"),
    ],
)
async def test_a_file_that_the_url_does_not_name_is_known_from_its_download_on(
    cluster: FakeCluster, operator: Operator, url: str, before: str
) -> None:
    apply_server(cluster, model={"url": url})
    await operator.reconcile()
    assert (model(cluster)["file"], model(cluster)["display"]) == ("", before)

    message = json.dumps(REPORT | {"file": "a-Q4_K_M.gguf"})
    await deploy_reported(cluster, operator, message, model={"url": url})
    assert (model(cluster)["file"], model(cluster)["display"]) == ("a-Q4_K_M.gguf",) * 2

    update_spec(cluster, replicas=0)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()

    assert cluster.by_name(PODS).keys().isdisjoint({"chat-replicas-0"})
    assert model(cluster)["file"] == "a-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("url", "reported", "file"),
    [
        (URL, "other.gguf", "a model.gguf"),
        ("hf://org/repo:Q4_K_M", "a\x1b[2J.gguf", ""),
    ],
)
async def test_a_reported_name_is_used_only_if_it_is_needed_and_printable(
    cluster: FakeCluster, operator: Operator, url: str, reported: str, file: str
) -> None:
    message = json.dumps(REPORT | {"file": reported})

    await deploy_reported(cluster, operator, message, model={"url": url})

    assert model(cluster)["file"] == file


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("{}", id="no size"),
        pytest.param("[" * 4096, id="deeply nested"),
        pytest.param(json.dumps(REPORT | {"name": "\ud800"}), id="lone surrogate"),
        pytest.param(json.dumps(REPORT | {"sizeBytes": "4 GB"}), id="text instead of a number"),
        pytest.param(json.dumps(REPORT | {"contextLength": -1}), id="negative number"),
        pytest.param(json.dumps(REPORT | {"name": "x" * 129}), id="too long"),
    ],
)
async def test_a_malformed_report_is_ignored(
    cluster: FakeCluster, operator: Operator, message: str
) -> None:
    await deploy_reported(cluster, operator, message)

    assert model(cluster) == FROM_SPEC
    assert condition(cluster, "ModelReady")["status"] == "True"


async def test_a_report_may_lack_metadata_and_have_unknown_fields(
    cluster: FakeCluster, operator: Operator
) -> None:
    minimal = {"sizeBytes": 7, "sha256": SHA256}

    await deploy_reported(cluster, operator, json.dumps(minimal | {"unknown field": 1}))

    assert model(cluster) == FROM_SPEC | minimal


async def test_the_report_of_the_newest_pod_is_used(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_reported(cluster, operator, replicas=3)
    deployment = cluster.by_name(DEPLOYMENTS)["chat-replicas"]
    newer = json.dumps(REPORT | {"name": "newer"})
    cluster.put(with_report(pod_of(deployment, 1), newer, "2026-11-01T12:00:10Z"))
    without_report = pod_of(deployment, 2)
    without_report["metadata"]["creationTimestamp"] = "2026-11-01T12:00:20Z"
    cluster.put(without_report)

    await operator.reconcile()

    assert model(cluster)["name"] == "newer"


async def test_the_last_report_is_kept_while_no_replica_runs(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_reported(cluster, operator)
    update_spec(cluster, replicas=0, contextPerSlot=512)
    await operator.reconcile()
    roll_out(cluster)

    await operator.reconcile()

    assert cluster.by_name(PODS).keys().isdisjoint({"chat-replicas-0"})
    assert model(cluster) == FROM_SPEC | REPORT


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"url": "https://models.example.com/other.gguf"}, id="another url"),
        pytest.param({"sha256": "cd" * 32}, id="another content"),
    ],
)
async def test_the_report_of_another_model_is_dropped(
    cluster: FakeCluster, operator: Operator, other: dict[str, str]
) -> None:
    await deploy_reported(cluster, operator)

    edit_spec(cluster, lambda spec: spec["model"].update(other))
    await operator.reconcile()

    assert set(model(cluster)) == {"source", "file", "display"}


async def test_the_report_is_kept_when_its_checksum_is_added_to_the_spec(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_reported(cluster, operator)

    edit_spec(cluster, lambda spec: spec["model"].update(sha256=SHA256.upper()))
    await operator.reconcile()

    assert model(cluster) == FROM_SPEC | REPORT


@pytest.mark.parametrize(
    ("context", "rest"),
    [
        (8192, ""),
        (8193, "; contextPerSlot is 8193, but the model was trained for 8192 tokens"),
    ],
)
async def test_a_context_longer_than_the_model_was_trained_for_is_reported(
    cluster: FakeCluster, operator: Operator, context: int, rest: str
) -> None:
    await deploy_reported(cluster, operator, contextPerSlot=context)

    found = condition(cluster, "ModelReady")

    assert (found["status"], found["reason"]) == ("True", "Downloaded")
    assert found["message"] == f"model downloaded{rest}"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"sha256": SHA256}, "model downloaded and verified"),
        (
            {"url": "https://a/m-00001-of-00001.gguf", "partsSha256": [SHA256]},
            "model downloaded and verified",
        ),
        ({}, "model downloaded"),
    ],
)
async def test_only_a_model_with_a_sha256_is_reported_as_verified(
    cluster: FakeCluster, operator: Operator, model: dict[str, Any], message: str
) -> None:
    await deploy_reported(cluster, operator, model={"url": URL} | model)

    assert condition(cluster, "ModelReady")["message"] == message


async def test_the_same_report_is_not_written_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_reported(cluster, operator)
    await operator.reconcile()
    before = cluster.by_name(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"]

    await operator.reconcile()

    assert cluster.by_name(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"] == before


@pytest.mark.parametrize(
    ("secret", "reason"),
    [({}, "Pending"), ({"tokenSecretRef": {"name": "huggingface"}}, "WaitingForSecret")],
)
async def test_a_replica_without_its_volumes_waits_for_the_secret_of_the_model(
    cluster: FakeCluster, operator: Operator, secret: dict[str, Any], reason: str
) -> None:
    apply_server(cluster, model={"url": URL, **secret})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, volumes_not_mounted())

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert ("Secret huggingface" in found["message"]) is bool(secret)
    assert ("with its entries token, hosts: create" in found["message"]) is bool(secret)


async def test_an_invalid_token_is_reported(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, model={"url": URL, "tokenSecretRef": {"name": "huggingface"}})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    error = download_error("ModelTokenInvalid", "the Secret's entry is no token")
    set_pod_status(cluster, download(state=error))

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == "ModelTokenInvalid"
    assert condition(cluster, "Degraded")["status"] == "True"


@pytest.mark.parametrize("reason", sorted(DOWNLOAD_REASONS))
def test_each_reason_of_a_download_is_in_the_table_of_reasons(reason: Reason) -> None:
    assert reasons.is_allowed("ModelReady", reason.value)
    assert reasons.severity(reason) is Severity.PROBLEM
