"""What a server's status says of its model."""

import json
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    change_spec,
    condition,
    pod_of,
    roll_out,
    server_status,
    stored,
)
from slotkeeper.api import reasons
from slotkeeper.api.problem_reasons import DOWNLOAD_REASONS, Reason
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
FROM_SPEC = {"source": URL, "file": "a model.gguf"}


def tells(pod: Manifest, message: str, created: str = "2026-11-01T12:00:00Z") -> Manifest:
    """The pod, once its download has ended with these words."""
    pod["metadata"]["creationTimestamp"] = created
    pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"] = message
    return pod


async def served(
    cluster: FakeCluster, operator: Operator, message: str = json.dumps(REPORT), **spec: Any
) -> None:
    """A server of one replica, whose download has told this."""
    stored(cluster, **{"model": {"url": f"{URL}?signature=CANARY#CANARY"}, **spec})
    await operator.reconcile()
    roll_out(cluster)
    cluster.put(tells(pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"]), message + "\n"))
    await operator.reconcile()


def model(cluster: FakeCluster) -> Any:
    return server_status(cluster)["model"]


async def test_what_a_pod_found_is_said_without_what_is_secret(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator)

    assert model(cluster) == FROM_SPEC | REPORT
    assert "CANARY" not in json.dumps(server_status(cluster))


async def test_before_a_pod_tells_the_spec_does(cluster: FakeCluster, operator: Operator) -> None:
    stored(cluster, model={"url": URL})

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
    ],
)
async def test_any_url_has_a_source_and_a_file(
    cluster: FakeCluster, operator: Operator, url: str, source: str, file: str
) -> None:
    stored(cluster, model={"url": url})

    await operator.reconcile()

    assert model(cluster) == {"source": source, "file": file}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("{}", id="no size"),
        pytest.param(json.dumps(REPORT | {"sizeBytes": "4 GB"}), id="no number"),
        pytest.param(json.dumps(REPORT | {"contextLength": -1}), id="less than none"),
        pytest.param(json.dumps(REPORT | {"name": "x" * 129}), id="too long"),
    ],
)
async def test_what_makes_no_sense_is_passed_over(
    cluster: FakeCluster, operator: Operator, message: str
) -> None:
    await served(cluster, operator, message)

    assert model(cluster) == FROM_SPEC
    assert condition(cluster, "ModelReady")["status"] == "True"


async def test_a_file_that_says_nothing_of_itself_has_its_size_and_checksum(
    cluster: FakeCluster, operator: Operator
) -> None:
    known = {"sizeBytes": 7, "sha256": SHA256}

    await served(cluster, operator, json.dumps(known | {"of a later tool": 1}))

    assert model(cluster) == FROM_SPEC | known


async def test_the_newest_pod_is_believed(cluster: FakeCluster, operator: Operator) -> None:
    await served(cluster, operator, replicas=3)
    deployment = cluster.named(DEPLOYMENTS)["chat-replicas"]
    newer = json.dumps(REPORT | {"name": "newer"})
    cluster.put(tells(pod_of(deployment, 1), newer, "2026-11-01T12:00:10Z"))
    silent = pod_of(deployment, 2)
    silent["metadata"]["creationTimestamp"] = "2026-11-01T12:00:20Z"
    cluster.put(silent)

    await operator.reconcile()

    assert model(cluster)["name"] == "newer"


async def test_what_was_found_stays_while_no_replica_runs(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator)
    change_spec(cluster, lambda spec: spec.update(replicas=0, contextPerSlot=512))
    await operator.reconcile()
    roll_out(cluster)

    await operator.reconcile()

    assert cluster.named(PODS).keys().isdisjoint({"chat-replicas-0"})
    assert model(cluster) == FROM_SPEC | REPORT


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"url": "https://models.example.com/other.gguf"}, id="another url"),
        pytest.param({"sha256": "cd" * 32}, id="another content"),
    ],
)
async def test_what_was_found_of_another_model_goes(
    cluster: FakeCluster, operator: Operator, other: dict[str, str]
) -> None:
    await served(cluster, operator)

    change_spec(cluster, lambda spec: spec["model"].update(other))
    await operator.reconcile()

    assert set(model(cluster)) == {"source", "file"}


async def test_a_checksum_that_is_added_changes_nothing_that_is_known(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator)

    change_spec(cluster, lambda spec: spec["model"].update(sha256=SHA256.upper()))
    await operator.reconcile()

    assert model(cluster) == FROM_SPEC | REPORT


@pytest.mark.parametrize(
    ("context", "rest"),
    [
        (8192, ""),
        (8193, "; contextPerSlot is 8193, but the model was trained for 8192 tokens"),
    ],
)
async def test_a_context_beyond_what_the_model_was_trained_for_is_said(
    cluster: FakeCluster, operator: Operator, context: int, rest: str
) -> None:
    await served(cluster, operator, contextPerSlot=context)

    found = condition(cluster, "ModelReady")

    assert (found["status"], found["reason"]) == ("True", "Downloaded")
    assert found["message"] == f"model downloaded and checked{rest}"


async def test_nothing_is_written_where_nothing_is_new(
    cluster: FakeCluster, operator: Operator
) -> None:
    await served(cluster, operator)
    await operator.reconcile()
    before = cluster.named(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"]

    await operator.reconcile()

    assert cluster.named(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"] == before


NO_VOLUMES = {"conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]}


@pytest.mark.parametrize(
    ("secret", "reason"),
    [({}, "Pending"), ({"tokenSecretRef": {"name": "huggingface"}}, "WaitingForSecret")],
)
async def test_a_replica_whose_volumes_are_not_there_waits_for_its_secret(
    cluster: FakeCluster, operator: Operator, secret: dict[str, Any], reason: str
) -> None:
    stored(cluster, model={"url": URL, **secret})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"status": NO_VOLUMES})

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert ("Secret huggingface" in found["message"]) is bool(secret)
    assert ("the entry token (model.tokenSecretRef)" in found["message"]) is bool(secret)


async def test_a_token_that_is_none_is_said(cluster: FakeCluster, operator: Operator) -> None:
    stored(cluster, model={"url": URL, "tokenSecretRef": {"name": "huggingface"}})
    await operator.reconcile()
    roll_out(cluster, ready=False)
    failure = {"reason": "ModelTokenInvalid", "message": "the Secret's entry is no token"}
    ended = {"terminated": {"exitCode": 1, "message": json.dumps(failure)}}
    status = {"name": "download", "image": "a", "ready": False, "state": ended}
    pod = pod_of(cluster.named(DEPLOYMENTS)["chat-replicas"], ready=False)
    cluster.put(pod | {"status": {"initContainerStatuses": [status]}})

    await operator.reconcile()

    assert condition(cluster, "ModelReady")["reason"] == failure["reason"]
    assert condition(cluster, "Degraded")["status"] == "True"


@pytest.mark.parametrize("reason", sorted(DOWNLOAD_REASONS))
def test_each_reason_of_a_download_is_in_the_table_of_reasons(reason: Reason) -> None:
    assert reasons.is_allowed("ModelReady", reason.value)
    assert reasons.severity(reason) is reasons.Severity.PROBLEM
