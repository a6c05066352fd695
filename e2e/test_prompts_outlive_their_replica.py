"""Computed prompts are saved to files, and restored by other processes of llama-server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prompt_cache import kill_llama_server, prompt_files, wait_for
from provider.prerequisites import docker_available
from servers import SLOW, Server, Spec, spec
from volumes import node_claim

pytestmark = pytest.mark.skipif(
    docker_available(), reason="in kind, volumes and processes of the node are in a container"
)

PROMPT = "".join(f"{number} is a number, and so is {number + 1}. " for number in range(60))[:2000]
"""About 2,700 tokens: the model has one for each byte, and a space has three."""


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim to `tmp_path`."""
    with node_claim(server, "prompts", tmp_path) as claim:
        yield claim


def kept(claim: str, **fields: Any) -> Spec:
    return spec(SLOW, contextPerSlot=4096, promptCache={"claimName": claim}, **fields)


def test_a_prompt_is_restored_after_zero_replicas(
    server: Server, claim: str, tmp_path: Path
) -> None:
    to_zero = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 2}
    server.apply(kept(claim, autoscaling=to_zero))
    server.wait("condition=Ready")
    cold = complete(server)
    server.wait_until_scaled_to_zero()
    [file] = prompt_files(tmp_path)

    restored = complete(server)

    print(f"{cold['timings']} cold, {restored['timings']} restored, {file.stat().st_size} bytes")
    assert cold["timings"]["cache_n"] == 0
    assert restored["timings"]["cache_n"] >= 0.9 * len(PROMPT)
    assert restored["timings"]["prompt_ms"] < cold["timings"]["prompt_ms"] / 10
    assert restored["content"] == cold["content"]
    server.wait_for_reason("PromptCacheActive", "Active")
    status = wait_for(
        lambda: server.get()["status"].get("promptCache"),
        lambda found: bool(found and found["restoredTokensLastHour"]),
    )
    assert status["files"] >= 1
    assert status["bytes"] >= file.stat().st_size


def test_a_prompt_is_restored_after_a_kill_and_after_a_rollout(
    server: Server, claim: str, tmp_path: Path
) -> None:
    server.ready(kept(claim))
    cold = complete(server)
    # A crash costs what has not been saved while the slot was idle.
    wait_for(lambda: prompt_files(tmp_path), lambda files: len(files) == 1)

    kill_llama_server(server)
    killed = complete(server)
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")
    rolled_out = complete(server)

    for restored in (killed, rolled_out):
        assert restored["timings"]["cache_n"] >= 0.9 * len(PROMPT)
        assert restored["content"] == cold["content"]


def test_prompts_are_removed_with_their_server(server: Server, claim: str, tmp_path: Path) -> None:
    server.ready(kept(claim))
    complete(server)
    wait_for(lambda: prompt_files(tmp_path), lambda files: len(files) == 1)

    server.kubectl("delete", f"llamaserver/{server.name}")

    # By a Job, after the last pod.
    wait_for(lambda: list(tmp_path.iterdir()), lambda left: not left)


def test_another_context_does_not_use_the_files(server: Server, claim: str, tmp_path: Path) -> None:
    server.ready(kept(claim))
    complete(server)
    wait_for(lambda: prompt_files(tmp_path), lambda files: len(files) == 1)

    server.apply(kept(claim) | {"contextPerSlot": 3072})
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")
    server.wait("condition=Ready")
    wait_for(lambda: len(server.replica_addresses()), lambda count: count == 1)
    other = complete(server)

    assert other["timings"]["cache_n"] == 0


def complete(server: Server) -> dict[str, Any]:
    """Send the prompt; return llama-server's response."""
    body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "cache_prompt": True}
    request = ("-sS", "--fail-with-body", "-d", json.dumps(body), f"{server.url}/completion")
    response: dict[str, Any] = json.loads(server.cluster.read("run", "curl", *request))
    return response
