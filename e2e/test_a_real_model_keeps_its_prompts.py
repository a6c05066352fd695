"""A prompt of a real model is restored wherever a replica has gone, or computed in advance."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from prompt_cache import kill_llama_server, prompt_files, wait_for
from provider.prerequisites import docker_available
from real_model import SHA256, serve
from servers import Server, Spec, spec
from stack import ROOT
from volumes import node_claim

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        docker_available(), reason="in kind, volumes and processes of the node are in a container"
    ),
]

CHARACTERS = 7000
"""About 2,000 tokens."""
TEXT = (ROOT / "docs/concepts/request-queueing.md").read_text()
PROMPT, OTHER = TEXT[:CHARACTERS], TEXT[CHARACTERS:]


@pytest.fixture
def claim(server: Server, tmp_path: Path) -> Iterator[str]:
    """Name of a claim to `tmp_path`."""
    with node_claim(server, "prompts", tmp_path) as claim:
        yield claim


@pytest.fixture
def kept(server: Server, claim: str) -> Spec:
    """The spec of a server with the model and a prompt cache."""
    model = {"url": serve(server), "sha256": SHA256}
    resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": 2}}
    cache = {"claimName": claim}
    return spec(resources=resources, contextPerSlot=4096, promptCache=cache) | {"model": model}


def test_a_prompt_is_restored_in_each_new_replica(
    server: Server, kept: Spec, tmp_path: Path
) -> None:
    server.apply(kept)
    server.wait("condition=Ready", 180)
    answers = {"cold": ask(server, PROMPT), "same slot": ask(server, PROMPT)}
    wait_for(lambda: prompt_files(tmp_path), lambda files: len(files) == 1)

    kill_llama_server(server)
    answers["after kill -9"] = ask(server, PROMPT)
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=180s")
    answers["after a rollout"] = ask(server, PROMPT)
    with busy(server):
        # Both slots of the replica that holds the prompt.
        wait_for(lambda: server.get()["status"]["slotsInUse"], lambda found: found == "2/2")
        server.apply(kept | {"replicas": 2})
        server.wait("jsonpath={.status.readyReplicas}=2", 120)
        answers["new replica"] = ask(server, PROMPT)
    server.apply(kept | {"autoscaling": {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 2}})
    server.wait_until_scaled_to_zero()
    answers["zero to one"] = ask(server, PROMPT)

    cold = answers["cold"]["timings"]["prompt_ms"]
    # `pytest -rP` shows these lines.
    for name, answer in answers.items():
        timings = answer["timings"]
        print(
            f"{name}: {timings['prompt_n']} tokens computed, {timings['cache_n']} cached, "
            f"{timings['prompt_ms'] / 1000:.3f} s, response after {answer['seconds']:.2f} s"
        )
        if name != "cold":
            assert timings["cache_n"] >= 0.9 * answers["cold"]["timings"]["prompt_n"]
        # The other replica keeps the cores busy beside the new one.
        if name not in {"cold", "new replica"}:
            assert timings["prompt_ms"] <= cold / 20


def test_a_prompt_is_computed_before_each_new_replica_gets_requests(
    server: Server, kept: Spec
) -> None:
    plain = {name: value for name, value in kept.items() if name != "promptCache"}
    server.apply(plain)
    server.wait("condition=Ready", 180)
    cold = ask(server, PROMPT)
    # All but the question of a user.
    prime = {"prompts": [{"text": PROMPT[:-100]}], "maxSeconds": 300}
    primed = plain | {"prime": prime}
    tokens = 0.9 * cold["timings"]["prompt_n"]
    answers = {}

    server.apply(primed | {"replicas": 0})
    server.wait("jsonpath={.status.replicas}=0", 120)
    server.apply(primed)
    wait_for_primed(server, tokens)
    answers["zero to one, without a request"] = ask(server, PROMPT)
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    wait_for_primed(server, 2 * tokens)
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=180s")
    answers["after a rollout"] = ask(server, PROMPT)
    kill_llama_server(server)
    wait_for_primed(server, 3 * tokens)
    answers["after kill -9"] = ask(server, PROMPT)
    with busy(server):
        # Both slots of the replica that holds the prompt.
        wait_for(lambda: server.get()["status"]["slotsInUse"], lambda found: found == "2/2")
        server.apply(primed | {"replicas": 2})
        wait_for_primed(server, 4 * tokens)
        answers["new replica"] = ask(server, PROMPT)

    for name, answer in {"cold": cold, **answers}.items():
        timings = answer["timings"]
        print(
            f"{name}: {timings['prompt_n']} tokens computed, {timings['cache_n']} cached, "
            f"{timings['prompt_ms'] / 1000:.3f} s, response after {answer['seconds']:.2f} s"
        )
        if name != "cold":
            # Computed before, as far as the beginning goes.
            assert timings["cache_n"] >= tokens
            assert timings["prompt_n"] > 1


def wait_for_primed(server: Server, tokens: float) -> None:
    """Wait until new replicas have computed so many tokens, all together."""

    def computed() -> int:
        prime = server.get()["status"].get("prime") or {}
        return 0 if prime.get("replicas") else int(prime.get("tokensLastHour", 0))

    wait_for(computed, lambda count: count >= tokens, seconds=300)


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Keep two slots busy with long responses."""
    with ExitStack() as stack:
        for number in range(2):
            body = json.dumps({"prompt": f"{number} {OTHER[:500]}", "n_predict": 3000})
            request = ("-sS", "-o", "/dev/null", "-d", body, f"{server.url}/completion")
            process = stack.enter_context(server.cluster.start("run", "curl", *request))
            stack.callback(process.kill)
        yield


def ask(server: Server, prompt: str) -> dict[str, Any]:
    """Send a prompt; return llama-server's response, and after how many seconds it arrived."""
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0}
    request = ("-sS", "--fail-with-body", "-d", json.dumps(body), f"{server.url}/completion")
    began = time.monotonic()
    response: dict[str, Any] = json.loads(server.cluster.read("run", "curl", *request))
    return response | {"seconds": time.monotonic() - began}
