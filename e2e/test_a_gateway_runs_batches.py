"""A gateway executes a batch of a file, also if its pod is killed meanwhile."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import GATEWAY, deploy_gateway
from servers import SLOW, Server, spec
from volumes import node_volume

COUNT = 60
IDS = [f"r{number}" for number in range(COUNT)]
CHAT = "/v1/chat/completions"
TOKENS = 100
"""Of a request: with two slots the batch takes several seconds."""


@pytest.fixture
def url(server: Server, tmp_path: Path) -> Iterator[str]:
    """URL of a gateway that serves batches, on a claim that the operator creates."""
    server.ready(spec(SLOW))
    with node_volume(server, f"{GATEWAY}-batches", tmp_path, mode="ReadWriteOnce"):
        url = deploy_gateway(server, replicas=1, batches={"storage": {"size": "1Gi"}})
        _wait_for_pod(server)
        yield url


def test_a_batch_is_completed_though_its_pod_is_killed(server: Server, url: str) -> None:
    batch = _create(server, url, tokens=TOKENS)
    _wait(server, url, batch, lambda found: found["request_counts"]["completed"] > 0)

    pods = ("pods", "-l", f"slotkeeper.dev/gateway={GATEWAY},slotkeeper.dev/component=batches")
    server.kubectl("delete", *pods, "--force", "--grace-period=0")
    _wait_for_pod(server)

    found = _wait(server, url, batch, lambda found: found["status"] == "completed")
    assert found["request_counts"] == {"total": COUNT, "completed": COUNT, "failed": 0}
    content = _curl(server, f"{url}/v1/files/{found['output_file_id']}/content")
    results = [json.loads(line) for line in content.splitlines()]
    assert sorted(each["custom_id"] for each in results) == sorted(IDS)
    for each in results:
        assert each["response"]["body"]["usage"]["completion_tokens"] == TOKENS


def test_other_requests_are_served_beside_a_batch(server: Server, url: str) -> None:
    batch = _create(server, url, tokens=10 * TOKENS)
    _wait(server, url, batch, lambda found: found["status"] == "in_progress")
    durations = []
    for _ in range(10):
        began = time.monotonic()
        response = _post(server, f"{url}{CHAT}", _body(server, 4))
        durations.append(time.monotonic() - began)
        assert response["usage"]["completion_tokens"] == 4
    # `pytest -rP` shows this line.
    print(f"seconds of requests beside a batch: {[round(each, 2) for each in sorted(durations)]}")

    cancelled = _post(server, f"{url}/v1/batches/{batch}/cancel", {})
    assert cancelled["status"] in {"cancelling", "cancelled"}
    _wait(server, url, batch, lambda found: found["status"] == "cancelled")


def _wait_for_pod(server: Server) -> None:
    server.kubectl("rollout", "status", f"deployment/{GATEWAY}-batches", "--timeout=120s")


def _create(server: Server, url: str, *, tokens: int) -> str:
    """Upload a file and create a batch of it; return its id."""
    lines = "".join(
        json.dumps(
            {"custom_id": each, "method": "POST", "url": CHAT, "body": _body(server, tokens)}
        )
        + "\n"
        for each in IDS
    )
    form = ("-F", "purpose=batch", "-F", "file=@-;filename=requests.jsonl")
    file = json.loads(_curl(server, f"{url}/v1/files", *form, stdin=lines))
    fields = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    return str(_post(server, f"{url}/v1/batches", fields)["id"])


def _body(server: Server, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {
        "model": server.name,
        "messages": messages,
        "max_tokens": tokens,
        "ignore_eos": True,
    }


def _wait(
    server: Server, url: str, batch: str, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Wait until the batch meets the condition; return it."""
    deadline = time.monotonic() + 180
    while True:
        found: dict[str, Any] = json.loads(_curl(server, f"{url}/v1/batches/{batch}"))
        # While its pod is replaced, the gateway responds with an error.
        if "status" in found and condition(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def _post(server: Server, url: str, tree: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = json.loads(_curl(server, url, "-d", json.dumps(tree)))
    return response


def _curl(server: Server, url: str, *arguments: str, stdin: str | None = None) -> str:
    """Send a request from the node; return the body of the response."""
    command = ("run", "curl", "-sS", "--max-time", "180")
    return server.cluster.read(*command, *arguments, url, stdin=stdin)
