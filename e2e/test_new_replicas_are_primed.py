"""New replicas compute beginnings of prompts before they get requests."""

import json
from typing import Any

from prompt_cache import wait_for
from servers import SLOW, Server, Spec, spec

SYSTEM = "".join(f"{number} is a number. " for number in range(100))
"""About 2,600 tokens: the model has one for each byte, and a space has three."""
NOTES = "".join(f"Line {number}, " for number in range(50))
CHAT = json.dumps({"messages": [{"role": "system", "content": SYSTEM}]})


def primed(**prime: Any) -> Spec:
    return spec(SLOW, contextPerSlot=4096, prime=prime)


def test_each_new_replica_has_the_beginnings_of_the_spec_and_of_the_config_map(
    server: Server,
) -> None:
    create_config_map(server)
    server.apply(primed(prompts=[{"text": NOTES}], configMapName="beginnings"))
    first = wait_for_tokens(server, len(SYSTEM) + len(NOTES))
    server.wait("condition=Ready")

    assert_found(server)
    server.wait_for_reason("PromptsPrimed", "Active")
    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    wait_for_tokens(server, 2 * first)
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")
    assert_found(server)


def test_a_server_whose_config_map_does_not_exist_serves_and_says_so(server: Server) -> None:
    server.ready(primed(configMapName="beginnings"))

    message = server.wait_for_reason("PromptsPrimed", "PromptInvalid")

    assert message == "ConfigMap beginnings does not exist, or has no keys"
    assert server.condition("Degraded")["reason"] == "PromptInvalid"
    assert ask(server, "Hello?")["timings"]["cache_n"] == 0
    create_config_map(server)
    # The kubelet updates the volume within about a minute.
    server.wait_for_reason("PromptsPrimed", "Active", 120)


def test_what_requests_share_is_computed_by_the_next_replica(server: Server) -> None:
    server.ready(primed(learned=True))
    for user in ("Hello?", "Why?"):
        ask(server, user)

    server.kubectl("rollout", "restart", f"deployment/{server.name}-replicas")
    wait_for_tokens(server, len(SYSTEM))
    server.kubectl("rollout", "status", f"deployment/{server.name}-replicas", "--timeout=120s")

    found = ask(server, "When?")["timings"]
    print(found)
    assert found["cache_n"] >= len(SYSTEM)


def create_config_map(server: Server) -> None:
    data = {"support.json": CHAT}
    metadata = {"name": "beginnings"}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    server.cluster.apply(manifest, namespace=server.namespace)


def wait_for_tokens(server: Server, tokens: int) -> int:
    """Wait until new replicas have computed so many tokens; return how many."""

    def computed() -> int:
        prime = server.get().get("status", {}).get("prime") or {}
        return 0 if prime.get("replicas") else int(prime.get("tokensLastHour", 0))

    return int(wait_for(computed, lambda count: count >= tokens))


def assert_found(server: Server) -> None:
    for user in ("Hello?", "Why?"):
        assert ask(server, user)["timings"]["cache_n"] >= len(SYSTEM)
        body = {"prompt": NOTES + user, "n_predict": 2}
        assert complete(server, "/completion", body)["timings"]["cache_n"] >= len(NOTES)


def ask(server: Server, user: str) -> dict[str, Any]:
    """Send a chat with the system prompt; return llama-server's response."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    return complete(server, "/v1/chat/completions", {"messages": messages, "max_tokens": 2})


def complete(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = ("-sS", "--fail-with-body", "-d", json.dumps(body), f"{server.url}{path}")
    response: dict[str, Any] = json.loads(server.cluster.read("run", "curl", *request))
    return response
