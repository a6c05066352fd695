"""A model on a claim is downloaded by a Job before the first request, and problems are reported."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from servers import QUICK, SLOW, Server, Spec, spec
from stack import MODELS_NAMESPACE, ROOT
from volumes import node_claim

TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 600}
THROTTLED = SLOW.replace("/tiny", "/slow/tiny")
"""At 1.6 MB/s, with four connections."""
TINY = ROOT / "build/models/tiny.gguf"
KILLS = 3
SECONDS = 60


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim to `tmp_path`."""
    with node_claim(server, "models", tmp_path) as claim:
        yield claim


def cached(url: str, claim: str) -> Spec:
    return spec(autoscaling=TO_ZERO) | {"model": {"url": url, "cache": {"claimName": claim}}}


def test_the_first_request_downloads_nothing(server: Server, claim: str) -> None:
    # A URL that no other test requests, to be found in the access log.
    url = f"{THROTTLED}?for={server.namespace}"
    other = replace(server, name="other")
    server.ready(cached(url, claim))
    server.wait_for_reason("ModelReady", "Prefetched")
    status, replicas = server.get()["status"], server.pods("replica")
    other.ready(spec(autoscaling=TO_ZERO) | {"model": {"url": THROTTLED}})

    [prefetched] = server.chat()
    [downloaded] = other.chat()

    log = server.cluster.kubectl("-n", MODELS_NAMESPACE, "logs", "deployment/models", "--tail=-1")
    requests = [line for line in log.splitlines() if f"?for={server.namespace} " in line]
    ranges = sum(int(line.split('" ')[1].split()[1]) for line in requests)
    first_tokens = [each["first_token_seconds"] for each in (prefetched, downloaded)]
    print(f"first token after {first_tokens[0]} s with, {first_tokens[1]} s without a prefetch")
    assert replicas == []
    assert status["replicas"] == 0
    assert status["model"]["architecture"] == "llama"
    assert status["model"]["sizeBytes"] == TINY.stat().st_size
    assert prefetched["completed"], prefetched
    assert downloaded["completed"], downloaded
    assert first_tokens[0] < first_tokens[1]
    # Some bytes are received twice: the header, and what a client no longer reads.
    assert ranges < 1.5 * TINY.stat().st_size
    [job] = server.children("jobs")
    assert job["status"]["succeeded"] == 1
    assert "failed" not in job["status"]


def test_a_wrong_url_is_reported_without_a_request(server: Server, claim: str) -> None:
    missing = QUICK.replace("quick", "missing")
    server.apply(cached(missing, claim))

    message = server.wait_for_reason("ModelReady", "ModelNotFound")
    server.wait_for_reason("Degraded", "ModelNotFound")

    assert missing in message
    assert "404" in message
    assert server.condition("Ready")["status"] == "False"
    assert server.pods("replica") == []
    # It is not tried again.
    [job] = server.children("jobs")
    server.kubectl("wait", "--for=condition=Failed", "jobs", "--all", "--timeout=30s")
    assert len(server.pods("prefetch")) == 1

    server.ready(cached(QUICK, claim))
    server.wait_for_reason("ModelReady", "Prefetched")
    [corrected] = server.children("jobs")
    assert corrected["metadata"]["name"] != job["metadata"]["name"]


def test_a_killed_pod_is_followed_by_one_that_continues_its_file(
    server: Server, claim: str, tmp_path: Path
) -> None:
    server.apply(cached(THROTTLED, claim))
    size, kept = TINY.stat().st_size, [0]
    for kill in range(1, KILLS + 1):
        part = _wait_for_size(tmp_path, size * kill // (KILLS + 2))
        kept.append(part.stat().st_size)
        own = "slotkeeper.dev/component=prefetch"
        server.kubectl("delete", "pods", "-l", own, "--force", "--grace-period=0")

    server.wait_for_reason("ModelReady", "Prefetched", 180)

    print(f"{KILLS} kills of a download of {size} bytes, with on the claim: {kept[1:]}")
    assert kept == sorted(kept)
    [whole] = tmp_path.glob("*.gguf")
    assert whole.read_bytes() == TINY.read_bytes()
    assert not list(tmp_path.glob("*.part"))
    assert server.pods("replica") == []


def test_a_request_during_the_download_is_served_by_a_replica_that_continues_it(
    server: Server, claim: str, tmp_path: Path
) -> None:
    server.ready(cached(THROTTLED, claim))
    _wait_for_size(tmp_path, TINY.stat().st_size // 4)

    [result] = server.chat()

    assert result["completed"], result
    assert server.condition("ModelReady")["reason"] == "Downloaded"
    assert server.children("jobs") == []


def test_progress_is_read_where_a_policy_denies_all_connections(server: Server, claim: str) -> None:
    server.cluster.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "deny-all"},
            "spec": {
                "podSelector": {"matchLabels": {"slotkeeper.dev/component": "prefetch"}},
                "policyTypes": ["Ingress"],
            },
        },
        namespace=server.namespace,
    )
    server.apply(cached(THROTTLED, claim))
    deadline = time.monotonic() + SECONDS
    while not (model := server.get().get("status", {}).get("model", {})).get("downloadedBytes"):
        assert time.monotonic() < deadline, model
        time.sleep(0.2)

    assert model["bytes"] == TINY.stat().st_size
    server.wait_for_reason("ModelReady", "Prefetched")


def test_a_quota_delays_the_prefetch_and_the_server_is_ready(server: Server, claim: str) -> None:
    server.ready(cached(QUICK, claim) | {"model": {"url": QUICK}})
    running = len(server.children("pods"))
    quota = ("quota", "full", f"--hard=pods={running}")
    server.kubectl("create", *quota)
    _wait_for_usage(server, running)
    server.apply(cached(QUICK, claim))
    path = '{.status.conditions[?(@.type=="ModelReady")].message}'
    deadline = time.monotonic() + SECONDS
    while "a quota or an admission policy" not in (
        message := server.kubectl("get", "llama", server.name, "-o", f"jsonpath={path}")
    ):
        assert time.monotonic() < deadline, message
        time.sleep(0.2)
    waiting = server.condition("ModelReady")["reason"]
    ready = server.condition("Ready")["status"]

    server.kubectl("delete", "quota", "full")
    server.wait_for_reason("ModelReady", "Prefetched", 180)

    assert waiting == "Pending"
    assert ready == "True"


def _wait_for_usage(server: Server, count: int) -> None:
    path = "jsonpath={.status.used.pods}"
    server.kubectl("wait", f"--for={path}={count}", "quota/full", "--timeout=30s")


def _wait_for_size(folder: Path, size: int) -> Path:
    """Wait until the partial file in this folder has at least this size; return its path."""
    deadline = time.monotonic() + SECONDS
    while True:
        for part in folder.glob("*.part"):
            if part.stat().st_size >= size:
                return part
        assert time.monotonic() < deadline, (
            f"no partial file of {size} bytes: {list(folder.iterdir())}"
        )
        time.sleep(0.01)
