"""A gateway lists the models of several servers, and a request for one at zero starts a replica."""

import json
import time
from typing import Any

import pytest

from gateways import GATEWAY, deploy_gateway
from servers import Server, spec
from stack import CHAT, Cluster

MODELS = ("first", "second")
TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 300}
PATH = "/v1/chat/completions"


@pytest.fixture
def servers(cluster: Cluster, namespace: str) -> list[Server]:
    """Two servers at zero, which no request has woken yet."""
    found = [Server(cluster, namespace, name) for name in MODELS]
    for server in found:
        server.apply(spec(autoscaling=TO_ZERO))
    for server in found:
        server.wait("condition=Ready")
    return found


def test_a_gateway_wakes_the_model_that_a_request_names(servers: list[Server]) -> None:
    url = deploy_gateway(servers[0], replicas=1)

    _, listed = _request(servers[0], f"{url}/v1/models")
    assert [model["id"] for model in listed["data"]] == list(MODELS)
    for name in MODELS:
        status, response = _request(servers[0], f"{url}{PATH}", body=_chat(name))
        assert status == 200, response
        assert response["usage"]["completion_tokens"] == 4
    status, response = _request(servers[0], f"{url}{PATH}", body=_chat("third"))
    assert (status, response["error"]["code"]) == (404, "model_not_found")
    for server in servers:
        assert len(server.replica_addresses()) == 1
    _wait_for_states(servers[0], dict.fromkeys(MODELS, "Ready"))


def test_an_api_key_uses_only_its_models(servers: list[Server]) -> None:
    keys = ("--from-literal=alice=of-alice", "--from-literal=bob=of-bob")
    servers[0].kubectl("create", "secret", "generic", "keys", *keys)

    url = deploy_gateway(
        servers[0],
        replicas=1,
        apiKeys={"secretRef": {"name": "keys"}, "models": {"bob": ["second"]}},
    )

    assert _request(servers[0], f"{url}/v1/models")[0] == 401
    _, listed = _request(servers[0], f"{url}/v1/models", key="of-bob")
    assert [model["id"] for model in listed["data"]] == ["second"]
    status, response = _request(servers[0], f"{url}{PATH}", key="of-bob", body=_chat("first"))
    assert (status, response["error"]["code"]) == (404, "model_not_found")
    for key, name in (("of-bob", "second"), ("of-alice", "first")):
        status, response = _request(servers[0], f"{url}{PATH}", key=key, body=_chat(name))
        assert status == 200, response


def test_one_of_two_models_is_loaded_at_a_time_within_the_budget(servers: list[Server]) -> None:
    url = deploy_gateway(
        servers[0], replicas=1, budget={"maxLoadedModels": 1, "minimumResidencySeconds": 1}
    )

    for name in (*MODELS, *MODELS):
        status, response = _request(servers[0], f"{url}{PATH}", body=_chat(name))
        assert status == 200, response

    _wait_for_states(servers[0], {"first": "AtZero", "second": "Ready"})
    budget = _gateway(servers[0])["status"]["budget"]
    actions = [(event["model"], event["action"]) for event in reversed(budget["history"])]
    loads = [model for model, action in actions if action == "Loaded"]
    assert loads == ["first", "second", "first", "second"]
    assert budget["limit"] == "1 model"


@pytest.mark.long
def test_200_requests_for_three_models_share_a_budget_of_one(
    cluster: Cluster, namespace: str
) -> None:
    models = ("first", "second", "third")
    servers = [Server(cluster, namespace, name) for name in models]
    for server in servers:
        server.apply(spec(autoscaling=TO_ZERO))
    for server in servers:
        server.wait("condition=Ready")
    budget = {"maxLoadedModels": 1, "minimumResidencySeconds": 1, "maximumWaitSeconds": 20}
    url = deploy_gateway(servers[0], replicas=1, budget=budget)
    options = [f"--model={name}" for name in models]
    size = ("--requests=200", "--concurrent=24", "--tokens=8", "--stream")

    began = time.monotonic()
    sending = cluster.start("run", *CHAT, url, *options, *size)
    changes = set()
    while sending.poll() is None:
        history = _gateway(servers[0])["status"].get("budget", {}).get("history", [])
        changes |= {(each["time"], each["model"], each["action"]) for each in history}
        assert len(_loaded(servers[0])) <= 1
        time.sleep(1)
    output, _ = sending.communicate()

    results = [json.loads(line) for line in output.splitlines()]
    loads = sum(action == "Loaded" for _, _, action in changes)
    seconds = time.monotonic() - began
    waits = sorted(result["first_token_seconds"] for result in results)
    # `pytest -rP` shows this line.
    median, maximum = waits[len(waits) // 2], waits[-1]
    print(f"{loads} loads in {seconds:.0f} s; waits: median {median:.0f} s, max. {maximum:.0f} s")
    assert [result for result in results if not result["completed"]] == []
    assert len(results) == 200
    # Each serves what is queued for it. In turns by request it would be 133 on average.
    assert loads < 60


def _loaded(server: Server) -> set[str]:
    """The servers that have a replica's pod, a terminating one too."""
    names = "jsonpath={.items[*].metadata.labels.slotkeeper\\.dev/server}"
    replicas = "slotkeeper.dev/component=replica"
    return set(server.kubectl("get", "pods", "-l", replicas, "-o", names).split())


def _chat(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": model, "messages": messages, "max_tokens": 4, "ignore_eos": True}


def _request(
    server: Server, url: str, *, key: str | None = None, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Send a request, a POST with a `body`; return the status and the JSON of the response."""
    authorization = ("-H", f"Authorization: Bearer {key}") if key else ()
    data = ("-d", json.dumps(body)) if body else ()
    output = ("-w", "\n%{http_code}", "--max-time", "180")
    text = server.cluster.read("run", "curl", "-sS", *output, *authorization, url, *data)
    content, _, status = text.rpartition("\n")
    return int(status), json.loads(content)


def _gateway(server: Server) -> dict[str, Any]:
    return server.cluster.get("llamagateway", GATEWAY, namespace=server.namespace)


def _wait_for_states(server: Server, expected: dict[str, str]) -> None:
    """Wait until the gateway's status has these states of the models."""
    deadline = time.monotonic() + 60
    while (states := _states(server)) != expected:
        assert time.monotonic() < deadline, states


def _states(server: Server) -> dict[str, str]:
    models = _gateway(server)["status"].get("models", [])
    return {model["name"]: model["state"] for model in models}
